"""What a config leaves to the card (`auto`), chosen by the planner before the weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any

from component.config.batches import AUTO
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.load import Config
from component.config.memory_rules import OFFLOADED
from component.config.settle import with_values
from component.models.packed_attention import why_not_packable
from component.pipeline.batches import rows_per_process
from component.pipeline.choice_notices import spell_choice, tell_choice, tell_defaults, tell_savings
from component.pipeline.saving_settings import may_be_offloaded
from component.pipeline.steps import num_rows_per_step
from component.planning.choice import Candidate, Choice, Freedom, Layout
from component.planning.choose import choose
from component.planning.gpus import Gpu
from component.planning.read_config import DataSize, Setting, mean_workload, read_workload
from component.planning.shape import ModelShape

#: Keys that are chosen here where they are `auto`, and keys that follow from them.
CHOSEN_KEYS = (
    "per_device_train_batch_size", "gradient_checkpointing", "dequantize_base", "optim", *OFFLOADED,
)  # fmt: skip
#: What `optim` may become: one algorithm, AdamW in float32. The first updates all tensors at once, the other keeps its
#: states in memory that can leave the device.
FUSED, PAGED = OPTIMIZERS = ("adamw_torch_fused", "paged_adamw_32bit")
#: Settings of a run whose model the planner does not know: of those that go with every model, what takes least memory.
CAUTIOUS = {
    "per_device_train_batch_size": 1, "gradient_checkpointing": True, "dequantize_base": False, "optim": PAGED,
    **dict.fromkeys(OFFLOADED, False),
}  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """What a choice depends on beside the config.

    Attributes:
        shape: of the model; None where the planner does not know its layers.
        card: tells the speed; None on a CPU.
        room: bytes that may be reserved.
        device: what `room` is of, in words.
        size_of: gives what is known of the data, for a config that packs or does not.
        start: adapter_config.json of the adapter that training goes on from; empty without one.
    """

    shape: ModelShape | None
    model_config: Mapping[str, Any]
    setting: Setting
    card: Gpu | None
    room: float
    device: str
    size_of: Callable[[Config], DataSize | None]
    start: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """A config without `auto`, and how it came to be.

    Attributes:
        facts: of run.json: asked, chosen, predicted, alternatives; empty where nothing was to be chosen.
        notices: one line each.
    """

    config: Config
    facts: Mapping[str, Any]
    notices: tuple[str, ...]
    choice: Choice | None = None


def open_keys(config: Config) -> tuple[str, ...]:
    """The keys that are to be chosen."""
    return tuple(key for key in CHOSEN_KEYS if config.values.get(key) == AUTO)


def settle(config: Config, around: Surroundings, recorded: Mapping[str, Any] | None = None) -> Settled:
    """Choose what a config leaves open; all else stays as it is.

    Args:
        recorded: what an earlier attempt of the run chose: it is taken again, so that the run goes on as it began.

    Raises:
        UserError: the rows of a step cannot be shared by the processes.
    """
    keys = open_keys(config)
    if not keys:
        return _packed_as_before(config, recorded or {})
    notices = tuple(tell_defaults(config))
    asked = {key: config.values[key] for key in (*keys, *(["packing"] if _chooses_packing(config) else []))}
    if around.shape is None:
        optimizer = (recorded or {}).get("optim") or _optimizers(config, around)[-1]
        return _cautious(config, asked, notices, optimizer)
    known = _recorded(config, recorded or {}, around)
    packings = (known["packing"],) if "packing" in known else _packings(config, around.model_config)
    again = _choose_again(config, around, known, packings)
    if again is not None and again.fits:
        choice, chosen, origin = again, {**known, **_batch(config, again.chosen.workload.rows)}, "as before"
    else:
        choice = _choose(config, around, packings, known.get("optim"))
        chosen = _changes(config, choice.chosen)
        origin = _why_chosen(again, known)
    shown = _shown(chosen)
    facts = {"asked": asked, "chosen": shown, "origin": origin, "device": around.device, **choice.to_dict()}
    told = (
        *tell_choice(config, shown, choice, origin, model_config=around.model_config, device=around.device),
        *(tell_savings(config, choice, around.start) if around.card is not None else ()),
    )
    return Settled(with_values(config, chosen), facts, (*notices, *told), choice)


def _why_chosen(again: Choice | None, known: Mapping[str, Any]) -> str:
    """The origin of a choice that is not the one of an earlier attempt, of which what is known was asked for again."""
    if not known:
        return "chosen"
    reason = "leaves something open or cannot be had here" if again is None else "is not predicted to fit"
    return f"chosen anew, as what the attempt before chose {reason}"


def _packed_as_before(config: Config, recorded: Mapping[str, Any]) -> Settled:
    """Nothing is left to choose but what rows are, and what an earlier attempt chose of that stays."""
    if not _chooses_packing(config) or "packing" not in recorded:
        return Settled(config, {}, ())
    chosen = {"packing": recorded["packing"] and AUTO}
    facts = {"asked": {"packing": AUTO}, "chosen": _shown(chosen), "origin": "as before"}
    return Settled(with_values(config, chosen), facts, ())


def _shown(chosen: Mapping[str, Any]) -> Mapping[str, Any]:
    """As people and run.json have it: `packing: auto`, of which a probe has the last word, was chosen to be true."""
    return {**chosen, "packing": bool(chosen["packing"])} if "packing" in chosen else chosen


def _choose(
    config: Config, around: Surroundings, packings: Sequence[bool | str], optimizer: str | None = None
) -> Choice:
    """Choose.

    Args:
        optimizer: of an earlier attempt, whose states no other one reads.
    """
    freedom = _freedom(config)
    if config.training.optim == AUTO:
        optimizers = _optimizers(config, around) if optimizer is None else (optimizer,)
        freedom = replace(freedom, optimizers=optimizers)
    freedom = replace(freedom, places=tuple(_places(config, around)))
    return choose(list(_layouts(config, around, packings)), freedom, around.card, room=around.room)


def _optimizers(config: Config, around: Surroundings) -> tuple[str, ...]:
    """What `optim` may become here, the one that takes least of the device last.

    Without a CUDA device there is nothing to page from, and DeepSpeed and FSDP share the states out themselves.
    """
    is_shared = config.training.deepspeed or config.training.fsdp
    return (FUSED,) if around.card is None or is_shared else OPTIMIZERS


def _may_offload(config: Config, around: Surroundings, key: str) -> bool:
    """Whether input embeddings or head, by the key, can be in main memory while something else is not.

    Generation in evaluation would copy the head for each token, and that of a checkpoint which is quantized already may
    be quantized as well.
    """
    assert around.shape is not None
    generates = config.model.task_type == "sft" and config.generation.num_eval_generations
    if key == "offload_head" and (generates or around.model_config.get("quantization_config")):
        return False
    return around.card is not None and may_be_offloaded(config, around.shape, OFFLOADED[key][0], around.start)


def _places(config: Config, around: Surroundings) -> Iterator[tuple[bool, bool]]:
    """Where input embeddings and head may be: the way that moves least first, and the head after the embeddings."""
    values = config.values
    (embedding, moves_embedding), (head, moves_head) = (
        (values[key] is True, values[key] == AUTO and _may_offload(config, around, key)) for key in OFFLOADED
    )
    yield embedding, head
    if moves_embedding:
        yield True, head
    if moves_head:
        yield embedding or moves_embedding, True


def _recorded(config: Config, recorded: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """What an earlier attempt chose, of the keys that are still open, where it can be had again."""
    keys = {*open_keys(config), *(["packing"] if _chooses_packing(config) else [])}
    if "gradient_checkpointing" in keys and _chooses_skipped(config):
        keys.add("checkpoint_skip_layers")
    keys -= {key for key in OFFLOADED if recorded.get(key) and not _may_offload(config, around, key)}
    known = {key: value for key, value in recorded.items() if key in keys}
    return known | ({"packing": known["packing"] and AUTO} if "packing" in known else {})


def _choose_again(
    config: Config, around: Surroundings, known: Mapping[str, Any], packings: Sequence[bool | str]
) -> Choice | None:
    """The plan of what an earlier attempt chose; None where it left something open, or the processes are others."""
    rows = known.get("per_device_train_batch_size", config.training.per_device_train_batch_size)
    if not set(open_keys(config)) <= known.keys() or rows not in _micro_batches(config):
        return None
    return _choose(with_values(config, known), around, packings)


def _cautious(config: Config, asked: Mapping[str, Any], notices: tuple[str, ...], optimizer: str) -> Settled:
    chosen = {key: value for key, value in {**CAUTIOUS, "optim": optimizer}.items() if key in asked}
    if "per_device_train_batch_size" in chosen:
        chosen |= _batch(config, 1)
    reason = "the layers of this model family are not known to the planner"
    facts = {"asked": dict(asked), "chosen": chosen, "origin": f"least memory: {reason}"}
    what = "what takes least memory and goes with every model"
    notice = f"auto: {spell_choice(chosen)}: {what}, as {reason}; set them by hand for more speed"
    return Settled(with_values(config, chosen), facts, (*notices, notice))


def _chooses_packing(config: Config) -> bool:
    return config.training.packing == AUTO and config.model.task_type in LANGUAGE_MODEL_TASKS


def _layouts(config: Config, around: Surroundings, packings: Sequence[bool | str]) -> Iterator[Layout]:
    """Every way to make rows and micro-batches that the config leaves open."""
    assert around.shape is not None
    for packing in packings:
        packed = with_values(config, {"packing": packing})
        data = around.size_of(packed)
        for rows in _micro_batches(config):
            settled = with_values(packed, _least(config) | _batch(config, rows))
            workload = read_workload(settled, around.shape, around.setting, data)
            share = num_rows_per_step(settled.training) / data.num_rows if data else 1.0
            steps = settled.training.gradient_accumulation_steps
            yield Layout(workload, mean_workload(workload, data), steps, share)


def _packings(config: Config, model_config: Mapping[str, Any]) -> tuple[bool | str, ...]:
    """Values of `packing`; auto stays auto where rows are packed: a probe of the loaded model has the last word."""
    if not _chooses_packing(config):
        return (config.training.packing,)
    return (False,) if why_not_packable(model_config) else (AUTO, False)


def _micro_batches(config: Config) -> Iterator[int]:
    """Rows of a micro-batch that the rows of a step divide into."""
    asked = config.training.per_device_train_batch_size
    if asked != AUTO:
        yield asked
        return
    whole = rows_per_process(config)
    small = [rows for rows in range(1, isqrt(whole) + 1) if whole % rows == 0]
    yield from sorted({*small, *(whole // rows for rows in small)})


def _batch(config: Config, rows: int) -> dict[str, Any]:
    """The keys that a micro-batch sets."""
    training = config.training
    changes: dict[str, Any] = {"gradient_accumulation_steps": rows_per_process(config) // rows}
    if training.per_device_train_batch_size == AUTO:
        changes["per_device_train_batch_size"] = rows
    if training.per_device_eval_batch_size is None:
        is_grpo = config.model.task_type == "grpo"
        changes["per_device_eval_batch_size"] = config.grpo.num_generations if is_grpo else rows
    return changes


def _least(config: Config) -> dict[str, Any]:
    """The keys that stand in a workload which recomputes all layers, before anything is chosen."""
    return {key: CAUTIOUS[key] for key in open_keys(config) if key != "per_device_train_batch_size"}


def _freedom(config: Config) -> Freedom:
    model = config.model
    has_four_bits = model.train_mode == "qlora" and model.quantization == "int4"
    values = (False, True) if model.dequantize_base == AUTO else (model.dequantize_base,)
    return Freedom(
        chooses_recomputation=model.gradient_checkpointing == AUTO,
        skipped_layers=None if _chooses_skipped(config) else config.model.checkpoint_skip_layers,
        dequantized=values if has_four_bits else (False,),
    )


def _chooses_skipped(config: Config) -> bool:
    return config.model.task_type in LANGUAGE_MODEL_TASKS and "checkpoint_skip_layers" not in config.places


def _changes(config: Config, chosen: Candidate) -> dict[str, Any]:
    """What the choice sets: values of keys that were open, and of those that follow from them."""
    settings, keys = chosen.settings(), open_keys(config)
    changes = {key: settings[key] for key in keys}
    if _chooses_packing(config):
        changes["packing"] = AUTO if settings["packing"] else False
    if "per_device_train_batch_size" in keys:
        changes |= _batch(config, chosen.workload.rows)
    if "gradient_checkpointing" in keys and _chooses_skipped(config):
        changes["checkpoint_skip_layers"] = settings["checkpoint_skip_layers"]
    return changes

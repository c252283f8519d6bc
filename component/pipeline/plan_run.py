"""The plan of a config, without torch, and of a prepared run; script/plan.py and --dry_run show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from component.artifacts.plan_facts import CardFacts
from component.config.errors import UserError
from component.config.load import Config
from component.config.nodes import excerpt
from component.config.settle import with_values, without_foreign_values
from component.models.decoder_layers import check_skipped, check_trained
from component.models.fp8_base import CAPABILITY, check_fp8_base
from component.models.precision import resolve_precision
from component.models.preparing import check_shared_head, offloaded_keys
from component.models.quantization import check_quantization
from component.models.support import is_fast_family
from component.models.unsloth_fit import why_not_unsloth
from component.pipeline.batches import settle_batches
from component.pipeline.plan_inputs import (
    expected_loader,
    find_model_config,
    imagined_hardware,
    limited,
    offline_adapter,
    offline_adapter_config,
    offline_model_config,
    planned_gpu,
    setting_of,
    size_of,
    understand_shape,
)
from component.pipeline.plan_notices import plan_notices
from component.pipeline.saving_settings import (
    Saving,
    open_savings,
    overrides_of,
    spell_overrides,
    with_savings,
)
from component.pipeline.settle_run import settle_planned
from component.pipeline.steps import num_optimizer_steps
from component.planning.gpus import COMPARED, GIB, GPUS, Gpu, describe_hardware
from component.planning.plan import Alternative, Plan, find_alternative, judge, plan
from component.planning.read_config import (
    DataSize,
    Setting,
    mean_workload,
    read_workload,
    unsloth_fields,
)
from component.planning.served import why_not_served
from component.planning.shape import MAX_SIZE, ModelShape, read_shape

if TYPE_CHECKING:
    from component.pipeline.prepare import PreparedRun

#: The card that is planned for where there is none: its precision is that of all newer ones.
USUAL_GPU = "h200"
NO_CARD = f"a GPU such as {GPUS[USUAL_GPU].title}, as there is none here"
#: Keys whose numbers have no end in the schema and are multiplied here.
PLANNED_NUMBERS = (
    "global_batch_size", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    "max_seq_length", "max_steps", "lora_rank",
)  # fmt: skip


@dataclass(frozen=True)
class PlannedRun:
    """A plan, and what it took from its surroundings.

    Attributes:
        place: that it is for, in words.
        loader_reason: why the run gets its loader.
        notices: what the plan does not count, and what was chosen for keys at `auto`, without data; one line each.
        auto: what was chosen for them as JSON-ready values; empty where nothing was.
    """

    plan: Plan
    setting: Setting
    place: str
    loader_reason: str
    notices: tuple[str, ...] = ()
    auto: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**self.plan.to_dict(), **({"auto": dict(self.auto)} if self.auto else {})}


def plan_config(config: Config, gpu: str | None = None) -> PlannedRun:
    """Plan a config from its own content and the model's config.json.

    Args:
        gpu: a name of GPUS; None for the card of this machine.

    Raises:
        UserError: an unknown card, one that lacks what the config asks for or does not tell its memory, or a model
            whose sizes are not found or not understood.
    """
    config = settle_batches(without_foreign_values(config))
    card = planned_gpu(gpu)
    model_config = find_model_config(config)
    shape = understand_shape(config, model_config)
    check_quantization(model_config, config.model.train_mode)
    check_skipped(config.model.checkpoint_skip_layers, shape.num_layers)
    check_trained(config.model.freeze_trainable_layers, shape.num_layers)
    hardware = imagined_hardware(card or GPUS[USUAL_GPU])
    check_shared_head(offloaded_keys(config.model, hardware), model_config)
    chosen = expected_loader(config, model_config, hardware)
    loader = chosen.got
    precision = resolve_precision(config.model, hardware)
    _check_numbers(config)
    settled = settle_planned(config, card or GPUS[USUAL_GPU], loader, precision, shape, model_config)
    setting = setting_of(config, model_config, hardware, loader, precision)
    place = NO_CARD if card is None else card.title
    planned = _plan(settled.config, shape, card, setting, None, place, chosen.reason)
    if planned.plan.workload.quantization == "fp8" and hardware.compute_capability is not None:
        check_fp8_base(config.model, hardware, precision)
    told = [notice for notice in (chosen.notice, settled.choice and _whose_choice(card)) if notice]
    return replace(planned, notices=(*settled.notices, *told, *planned.notices), auto=settled.facts)


def _whose_choice(card: Gpu | None) -> str:
    """What the rows of other cards show where settings were chosen for one."""
    title = GPUS[USUAL_GPU].title if card is None else card.title
    why = ", as there is no card here" if card is None else ""
    return (
        f"auto: chosen for {title}{why}; other cards are held against this choice, and --gpu NAME chooses for another"
    )


def plan_prepared(prepared: PreparedRun) -> PlannedRun | None:
    """Plan a prepared run with its data; None where the sizes of the model are not understood.

    For its own device, or where a config that is not for a CPU is tried on one, for a GPU.
    """
    config, model_config = prepared.config, prepared.model_config
    hardware, chosen, precision = prepared.hardware, prepared.loader, prepared.precision
    shape = read_shape(model_config)
    if shape is None:
        return None
    place = hardware.name
    if hardware.kind == "cpu" and not config.training.use_cpu:
        hardware = imagined_hardware(GPUS[USUAL_GPU])
        chosen = expected_loader(config, model_config, hardware)
        precision, place = resolve_precision(config.model, hardware), NO_CARD
    setting = setting_of(config, model_config, hardware, chosen.got, precision)
    card, data = describe_hardware(prepared.hardware), data_size(prepared)
    planned = _plan(config, shape, card, setting, data, place, chosen.reason)
    return replace(planned, auto=prepared.auto)


def as_built(prepared: PreparedRun, decided: Mapping[str, Any]) -> PreparedRun:
    """The run as its loaded model has it, for plans and advice: the same where packing is as it was planned.

    Args:
        decided: `RunContext.decided`, of the builder of the trainer.
    """
    packing, training = decided.get("packing"), prepared.config.training
    if packing is None or packing["got"] == bool(training.packing):
        return prepared
    return replace(prepared, config=with_values(prepared.config, {"packing": packing["got"]}))


def data_size(prepared: PreparedRun) -> DataSize:
    """What a plan needs to know of prepared data."""
    return size_of(prepared.config, prepared.data.train)


def _plan(
    config: Config,
    shape: ModelShape,
    card: Gpu | None,
    setting: Setting,
    data: DataSize | None,
    place: str,
    loader_reason: str,
) -> PlannedRun:
    _check_numbers(config)
    training = config.training
    workload = read_workload(config, shape, setting, data)
    steps = training.max_steps if training.max_steps > 0 else None
    if data is not None:
        steps = num_optimizer_steps(training, data.num_rows)
    made = plan(
        workload,
        limited(card, config),
        micro_batches=training.gradient_accumulation_steps or 1,
        timed=mean_workload(workload, data),
        num_steps=steps,
    )
    return PlannedRun(made, setting, place, loader_reason, tuple(plan_notices(config, shape, setting, card)))


def _check_numbers(config: Config) -> None:
    for key in PLANNED_NUMBERS:
        value = config.values.get(key)
        if isinstance(value, int) and value > MAX_SIZE:
            raise UserError(f"{key}: {excerpt(str(value))} is beyond what can be planned; use {MAX_SIZE:,} or less")


def compare_cards(made: Plan, config: Config) -> tuple[CardFacts, ...]:
    """What other cards would need, of which a run takes no more than the config lets it."""
    return tuple(_card_facts(made, config, GPUS[name]) for name in COMPARED)


def _card_facts(made: Plan, config: Config, whole: Gpu) -> CardFacts:
    card = limited(whole, config) or whole
    of = f"{card.memory_bytes / GIB:.3g} of " if card.memory_bytes < whole.memory_bytes else ""
    found = _find_alternative(made, config, card)
    overrides = dict(found.overrides) if found else {}
    if config.training.global_batch_size is not None:
        overrides.pop("gradient_accumulation_steps", None)  # it follows
    return CardFacts(
        name=f"{card.title}, {of}{whole.memory_bytes / GIB:.3g} GiB",
        verdict=judge(made.memory, card),
        obstacle=_why_no_fp8(made, card) or why_not_served(card.capability),
        overrides=None if found is None else spell_overrides(overrides),
        reserved_bytes=found.reserved if found else None,
        tokens_per_second=found.tokens_per_second if found else None,
    )


def _why_no_fp8(made: Plan, card: Gpu) -> str | None:
    if made.workload.quantization != "fp8" or card.capability is None or card.capability >= CAPABILITY:
        return None
    major, minor = CAPABILITY
    return f"runs only without fp8_base, which needs compute capability {major}.{minor} or more"


def _may_use_unsloth(made: Plan, config: Config, card: Gpu) -> bool:
    """Whether `use_unsloth: true` gets its own kernels on a card."""
    model, family = config.model, made.workload.shape.model_type
    if model.model_loader is not None or not is_fast_family(family):
        return False
    name = model.model_name_or_path
    model_config = {"model_type": family, **(offline_model_config(name) or {})}
    hardware, adapter = imagined_hardware(card), offline_adapter(name)
    return why_not_unsloth(model, made.workload.task, hardware, model_config, adapter=adapter) is None


def _find_alternative(made: Plan, config: Config, card: Gpu) -> Alternative | None:
    """The nearest settings that fit a card; where none do, those beside settings that save memory for time."""
    work, unsloth = made.workload, None
    if work.loader == "vanilla" and _may_use_unsloth(made, config, card):
        unsloth = replace(work, **unsloth_fields(work, config))
    start = offline_adapter_config(config.model.model_name_or_path)

    def find(savings: Sequence[Saving]) -> Alternative | None:
        """The nearest settings beside some that save memory."""
        return find_alternative(
            with_savings(work, savings),
            card,
            config=config,
            micro_batches=made.micro_batches,
            unsloth=None if unsloth is None else with_savings(unsloth, savings),
        )

    plain, savings = find(()), list(open_savings(config, work, start))
    found = find(savings) if plain is None else None
    if found is None:
        return plain
    for saving in reversed(savings):
        fewer = [other for other in savings if other is not saving]
        again = find(fewer)
        if again is not None and again.overrides == found.overrides:
            savings, found = fewer, again
    return replace(found, overrides={**overrides_of(savings), **found.overrides})

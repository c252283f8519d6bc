"""What a config leaves to the card is chosen before the weights are loaded; all else stays as it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from component.artifacts.manifest import Manifest
from component.config.errors import UserError
from component.config.load import Config, load_config
from component.pipeline.batches import settle_batches
from component.pipeline.choose_settings import Settled, Surroundings, _micro_batches, open_keys, settle
from component.pipeline.out_of_memory import resume_command
from component.pipeline.settle_run import _is_choice, recorded_choice
from component.planning.choice import room_on
from component.planning.gpus import GIB, GPUS
from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.read_config import DataSize, Setting
from component.planning.shape import read_shape

NAME = "NousResearch/Meta-Llama-3-8B-Instruct"
BASE = {"model_name_or_path": NAME, "train_file": "rows.jsonl", "output_dir": "out", "use_unsloth": True}
OPEN = {"per_device_train_batch_size": "auto", "gradient_checkpointing": "auto", "dequantize_base": "auto"}
#: 10,000 samples of chat length.
PADDED, PACKED = DataSize(10_000, 330.0, 2048), DataSize(1620, 330.0, 2048, 2048)


def load(**values: Any) -> Config:
    return settle_batches(load_config({**BASE, **values}))


def around(
    memory_gib: float, *, model_config: Mapping[str, Any] = KNOWN_CONFIGS[NAME], gpu: str | None = "h200"
) -> Any:
    return Surroundings(
        shape=read_shape(model_config),
        model_config=model_config,
        setting=Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True),
        card=GPUS[gpu] if gpu else None,
        room=room_on(memory_gib * GIB),
        device="test card",
        size_of=lambda config: PACKED if config.training.packing else PADDED,
    )


def changes(config: Config, settled: Settled) -> dict[str, Any]:
    """Every value of the sections that is another."""
    before, after = (
        {
            name: value
            for section in ("model", "training", "data")
            for name, value in asdict(getattr(one, section)).items()
        }
        for one in (config, settled.config)
    )
    assert settled.config.written == config.written
    return {key: after[key] for key in before if after[key] != before[key]}


def test_nothing_is_chosen_where_nothing_is_open() -> None:
    config = load(packing="auto")
    assert settle(config, around(24)) == Settled(config, {}, ())


def test_all_keys() -> None:
    config = load(**OPEN, packing="auto", global_batch_size=32)
    settled = settle(config, around(16))
    changed = changes(config, settled)
    assert 0 < changed.pop("checkpoint_skip_layers") < 32
    assert changed == {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 8,
        "gradient_checkpointing": True,
        "dequantize_base": False,
    }
    assert open_keys(settled.config) == ()
    assert settled.facts["asked"] == {**OPEN, "packing": "auto"}
    assert settled.facts["chosen"] == {**changes(config, settled), "packing": True}
    assert "packing: true" in settled.notices[-1] and settled.config.training.packing == "auto"  # a probe may refuse
    assert settled.facts["fits"] and settled.facts["margin"] == 0.05
    assert settled.facts["predicted"]["peak_reserved_bytes"] <= settled.facts["room_bytes"]
    assert settled.facts["alternatives"] and settled.facts["rejected"]
    assert [notice.partition(":")[0] for notice in settled.notices] == ["auto"]
    more = settle(config, around(80))
    assert changes(config, more)["gradient_checkpointing"] is False and more.config.model.dequantize_base is True


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"per_device_train_batch_size": "auto", "gradient_checkpointing": False},
         {"per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size"}),
        ({"per_device_train_batch_size": "auto", "per_device_eval_batch_size": 3},
         {"per_device_train_batch_size", "gradient_accumulation_steps"}),
        ({"gradient_checkpointing": "auto"}, {"gradient_checkpointing", "checkpoint_skip_layers"}),
        ({"gradient_checkpointing": "auto", "checkpoint_skip_layers": 3}, {"gradient_checkpointing"}),
        ({"gradient_checkpointing": "auto", "task_type": "dpo"}, {"gradient_checkpointing"}),
        ({"dequantize_base": "auto"}, {"dequantize_base"}),
        ({"dequantize_base": "auto", "quantization": "int8"}, {"dequantize_base"}),
        ({"gradient_checkpointing": "auto", "packing": True}, {"gradient_checkpointing", "checkpoint_skip_layers"}),
    ],
)  # fmt: skip
def test_only_open_keys_change(values: dict[str, Any], expected: set[str]) -> None:
    config = load(**values)
    settled = settle(config, around(20))
    assert changes(config, settled).keys() <= expected
    assert not open_keys(settled.config)
    rows = settled.config.training
    assert rows.per_device_train_batch_size * rows.gradient_accumulation_steps == 16
    if values.get("quantization") == "int8":
        assert settled.config.model.dequantize_base is False
    if "checkpoint_skip_layers" in values:
        assert settled.config.model.checkpoint_skip_layers == 3


def test_skipped_layers_that_nothing_is_left_of_are_told() -> None:
    config = load(gradient_checkpointing="auto", checkpoint_skip_layers=3)
    told = "checkpoint_skip_layers: 3 has no effect: gradient_checkpointing: auto recomputes no layer"
    for memory_gib, is_told in ((141, True), (12, False)):
        settled = settle(config, around(memory_gib))
        assert settled.config.model.gradient_checkpointing is not is_told
        assert (told in settled.notices) is is_told


@pytest.mark.parametrize("memory_gib", [7.5, 9])
def test_where_nothing_fits_what_would_is_named(memory_gib: float) -> None:
    said = settle(load(**OPEN), around(memory_gib)).notices[-1]
    saving, _, rest = said.removeprefix("auto: with ").partition(", ")
    assert rest == "which it does not choose here, it is predicted to fit"
    values = dict(item.split("=") for item in saving.split())
    assert values and settle(load(**OPEN, **values), around(memory_gib)).choice.fits


def test_where_nothing_at_all_fits_nothing_is_named() -> None:
    assert "predicted to fit" not in settle(load(**OPEN), around(5)).notices[-1].partition("this takes least")[2]


def test_the_default_step_is_said() -> None:
    settled = settle(load(per_device_train_batch_size="auto"), around(24))
    assert settled.notices[0].startswith("global_batch_size: 16 rows a step, the default beside")
    assert settled.config.training.global_batch_size == 16


def test_packing_off() -> None:
    """Where full rows do not fit although padded ones would, which is said."""
    config = load(**OPEN, packing="auto", max_seq_length=131_072)
    long = DataSize(40, 330.0, 2048, 131_072)
    settled = settle(config, replace(around(12), size_of=lambda config: long if config.training.packing else PADDED))
    assert settled.facts["fits"]
    assert settled.config.training.packing is False and settled.config.model.packing is False
    assert any("packing: auto is off: no full rows are predicted to fit" in notice for notice in settled.notices)
    assert settle(config, around(141)).config.training.packing == "auto"


def test_an_unknown_family_takes_least_memory() -> None:
    settled = settle(load(**OPEN), around(24, model_config={"model_type": "bloom"}))
    chosen = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "dequantize_base": False}
    assert settled.facts["chosen"].items() >= chosen.items()
    assert settled.config.training.gradient_accumulation_steps == 16
    assert "not known to the planner" in settled.notices[-1]


def test_a_recorded_choice() -> None:
    """It is taken again where it fits, also beside an override of one of its keys; else all but packing is new."""
    config = load(**OPEN, packing="auto")
    recorded = settle(config, around(16)).facts["chosen"]
    again = settle(config, around(141), recorded)
    assert again.facts["chosen"] == recorded and again.facts["origin"] == "as before"
    assert recorded["packing"] is True and again.config.training.packing == "auto"
    smaller = settle(config, around(11), recorded)
    assert smaller.facts["origin"].startswith("chosen anew") and smaller.facts["fits"]
    assert smaller.config.training.packing == "auto"
    other = settle(config, around(80), {**recorded, "per_device_train_batch_size": 7})
    assert "(chosen anew, as what the attempt before chose leaves something open or cannot be had" in other.notices[-1]
    override = load(**{**OPEN, "per_device_train_batch_size": 1, "global_batch_size": 16}, packing="auto")
    other = settle(override, around(141), recorded)
    assert other.config.training.per_device_train_batch_size == 1
    assert other.config.model.checkpoint_skip_layers == recorded["checkpoint_skip_layers"]
    unpacked = settle(config, around(141), {**recorded, "packing": False, "checkpoint_skip_layers": 0})
    assert unpacked.config.training.packing is False
    assert any(notice.startswith("packing: auto is off: as before;") for notice in unpacked.notices)


def test_what_rows_are_stays_although_all_else_is_said_by_now() -> None:
    """The override that an attempt out of memory was advised to take leaves nothing open but packing."""
    config = load(packing="auto", per_device_train_batch_size=1, global_batch_size=16)
    settled = settle(config, around(12), {"packing": False, "per_device_train_batch_size": 4})
    assert settled.config.training.packing is False
    assert settled.facts["chosen"] == {"packing": False}
    assert settle(config, around(12)).config.training.packing == "auto"


def test_every_divisor_of_a_step_is_tried_whatever_its_rows() -> None:
    """A number beside a billion's divisors would be tried for minutes."""
    assert list(_micro_batches(load(**OPEN, global_batch_size=36))) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert len(list(_micro_batches(load(**OPEN, global_batch_size=10**9)))) == 100


@pytest.mark.parametrize(("memory_gib", "rows", "recomputes"), [(900, 16, False), (22, 1, True)])
def test_without_a_known_speed(memory_gib: float, rows: int, recomputes: bool) -> None:
    """Memory goes into the base first, and it is said what the choice stands on; with a known speed nothing is."""
    settled = settle(load(**OPEN), around(memory_gib, gpu=None))
    assert settled.config.training.per_device_train_batch_size == rows
    assert settled.config.model.gradient_checkpointing is recomputes and settled.config.model.dequantize_base is True
    assert settled.facts["predicted"]["step_seconds"] is None
    order = "a base in 16 bit, then fewest layers recomputed, then largest micro-batch"
    said = f"auto: the speed of sft on test card is not known: chosen by memory alone: {order}; "
    assert settled.notices[-1].startswith(said)
    again = settle(load(**OPEN), around(memory_gib, gpu=None), settled.facts["chosen"])
    known = settle(load(**OPEN), around(memory_gib))
    assert not any("by memory alone" in notice for notice in (*again.notices, *known.notices))


def test_grpo_evaluates_whole_groups() -> None:
    config = load(**OPEN, task_type="grpo", reward_functions="length", num_generations=4)
    assert settle(config, around(141)).config.training.per_device_eval_batch_size == 4


def test_resume_command(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "\n".join(f"{key}: {str(value).lower() if value is True else value}" for key, value in BASE.items())
    )
    config = load_config(path, ["train_file=[a.jsonl, b c.jsonl]", "per_device_train_batch_size=8", "use_unsloth=auto"])
    command = resume_command(config, {"per_device_train_batch_size": 4, "gradient_checkpointing": True})
    assert command == (
        f'python train.py --train_args_file {path} \'train_file=["a.jsonl", "b c.jsonl"]\' use_unsloth=auto '
        "per_device_train_batch_size=4 gradient_checkpointing=true"
    )
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert resume_command(config, {}).startswith("torchrun --nproc_per_node=2 train.py --train_args_file ")


def test_an_optimizer_stays_that_of_the_attempt_before() -> None:
    """No other one reads its states, whatever the card."""
    config = load(**OPEN, optim="auto")
    fused, paged = "adamw_torch_fused", "paged_adamw_32bit"
    assert settle(config, around(141)).config.training.optim == fused
    assert settle(config, around(141, gpu=None)).config.training.optim == fused
    before = settle(config, around(24)).facts["chosen"] | {"optim": paged}
    assert settle(config, around(141), before).config.training.optim == paged
    large = settle(config, around(141)).facts["chosen"]
    anew = settle(config, around(16), large)
    assert anew.facts["origin"].startswith("chosen anew") and anew.config.training.optim == fused
    assert settle(load(optim="adamw_8bit", **OPEN), around(141)).config.training.optim == "adamw_8bit"


@pytest.mark.parametrize("values", [{"fsdp": "full_shard"}, {"deepspeed": "train_args/ds_z3_config.json"}])
def test_states_that_are_shared_out_are_not_paged(values: dict[str, Any]) -> None:
    config = load(**BASE | values | {"use_unsloth": False, "optim": "auto"})
    assert settle(config, around(6)).config.training.optim == "adamw_torch_fused"


def test_the_optimizer_of_an_unknown_family() -> None:
    """Nothing is paged where there is no CUDA device, but the states that there are decide."""
    unknown, config = {"model_type": "bloom"}, load(optim="auto")
    for gpu, recorded, optimizer in (
        ("h200", {}, "paged_adamw_32bit"),
        (None, {}, "adamw_torch_fused"),
        (None, {"optim": "paged_adamw_32bit"}, "paged_adamw_32bit"),
    ):
        settled = settle(config, around(24, model_config=unknown, gpu=gpu), recorded)
        assert settled.config.training.optim == optimizer


@pytest.mark.parametrize(
    ("chosen", "damage"),
    [
        (None, "does not say whose states the checkpoints hold for optim: auto"),
        ({"packing": False}, "does not say whose states the checkpoints hold for optim: auto"),
        ({"optim": "sgd"}, "holds what cannot be chosen"),
        ({"optim": "adamw_torch_fused", "gradient_checkpointing": "auto"}, "holds what cannot be chosen"),
        ({"optim": "adamw_torch_fused", "packing": "auto"}, "holds what cannot be chosen"),
    ],
)
def test_damaged_record_of_a_choice(tmp_path: Path, chosen: Any, damage: str) -> None:
    """A checkpoint is not gone on from with an optimizer that may be another."""
    config = load(optim="auto", output_dir=str(tmp_path))
    Manifest.create(tmp_path, {"config": {"optim": "auto"}, "auto": {"chosen": chosen} if chosen else {}})
    assert recorded_choice(config) is None  # there is nothing to go on from
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(UserError, match=damage) as error:
        recorded_choice(config)
    assert f"{tmp_path / 'run.json'}: damaged: auto.chosen" in str(error.value)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_both_optimizers_are_one_algorithm(decay: float) -> None:
    """20 steps with gradients of 1e-2 to 1 on 120,000 numbers, which are paged where there is a device to page to."""
    from bitsandbytes.optim import PagedAdamW32bit

    ends = []
    for make in (partial(torch.optim.AdamW, fused=True), PagedAdamW32bit):
        draws = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(400, 300, generator=draws))
        optimizer = make([weight], lr=1e-2, weight_decay=decay)
        for step in range(20):
            weight.grad = torch.randn(400, 300, generator=draws) * 10.0 ** (step % 3 - 2)
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-5)


ALL_OPEN = {**OPEN, "optim": "auto"}
OFFLOAD = {**ALL_OPEN, "offload_embedding": "auto"}
BOTH = {**OFFLOAD, "offload_head": "auto"}


def test_the_embedding_is_offloaded_where_nothing_else_fits() -> None:
    """The other keys are those that are chosen beside `true`; an attempt before is gone on with as it was."""
    chosen = settle(load(**OFFLOAD), around(8))
    assert not settle(load(**ALL_OPEN), around(8)).choice.fits and chosen.choice.fits
    by_hand = settle(load(**ALL_OPEN, offload_embedding=True), around(8))
    assert chosen.config.values == by_hand.config.values and chosen.config.model == by_hand.config.model
    assert chosen.facts["asked"]["offload_embedding"] == "auto" and "offload_embedding: true" in chosen.notices[-1]
    large = settle(load(**OFFLOAD), around(141))
    assert large.config.model.offload_embedding is False and large.facts["chosen"]["offload_embedding"] is False
    again = settle(load(**OFFLOAD), around(141), chosen.facts["chosen"])
    assert again.facts["origin"] == "as before" and again.config.model == chosen.config.model
    anew = settle(load(**OFFLOAD), around(8), large.facts["chosen"])
    assert anew.facts["origin"].startswith("chosen anew") and anew.config.model.offload_embedding is True


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({}, {"offload_embedding": True, "offload_head": True}),
        ({"offload_embedding": False}, {"offload_head": False}),  # alone it does not help a loss that needs it there
        ({"offload_embedding": True}, {"offload_head": True}),
        ({"offload_head": True}, {"offload_embedding": True}),
        ({"modules_to_save": ["lm_head"]}, {"offload_embedding": True, "offload_head": False}),
        ({"modules_to_save": ["embed_tokens"]}, {"offload_embedding": False, "offload_head": False}),
        # Answers at evaluations would copy it for each of their tokens.
        ({"num_eval_generations": 2, "eval_split": 0.1}, {"offload_embedding": True, "offload_head": False}),
    ],
)
def test_the_head_is_offloaded_beside_the_embedding(values: dict[str, Any], chosen: dict[str, bool]) -> None:
    """What is not open stays, and what is trained stays on the device."""
    settled = settle(load(**{**BOTH, **values}), around(8))
    assert {key: value for key, value in settled.facts["chosen"].items() if key.startswith("offload")} == chosen
    assert settled.facts["asked"].keys() >= chosen.keys()
    assert {key: settled.config.values[key] for key in chosen} == chosen


def test_a_head_that_may_be_quantized_stays_on_the_device() -> None:
    quantized = {**KNOWN_CONFIGS[NAME], "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    chosen = settle(load(**BOTH), around(8, model_config=quantized)).facts["chosen"]
    assert chosen["offload_embedding"] is True and chosen["offload_head"] is False


def test_nothing_is_moved_beside_another_reference_model() -> None:
    """It is loaded alike, and its head may be its embeddings."""
    keys = {"task_type": "dpo", "offload_embedding": "auto", "offload_head": "auto"}
    for reference, is_moved in ((None, True), ("Qwen/Qwen2.5-0.5B-Instruct", False)):
        config = load_config({**BASE, **keys, "reference_model_name_or_path": reference})
        assert settle(config, around(12)).config.model.offload_embedding is is_moved


@pytest.mark.parametrize("task", ["grpo", "reward"])
def test_heads_of_these_tasks_stay_on_the_device(task: str) -> None:
    """Generation would copy it for each token, and a head for scores of answers is small."""
    values = {"task_type": task, "train_mode": "lora", "offload_head": "auto"}
    config = load_config({**BASE, **values, **({"reward_functions": ["length"]} if task == "grpo" else {})})
    assert settle(config, around(8)).config.model.offload_head is False


def test_a_record_of_what_cannot_be_chosen() -> None:
    assert _is_choice({"offload_embedding": True, "packing": True, "per_device_train_batch_size": 2})
    assert not _is_choice({"offload_embedding": "auto"}) and not _is_choice({"packing": "auto"})


def test_what_auto_does_is_not_advised() -> None:
    """Where even that does not do, what would beside it."""
    said = settle(load(**OPEN, offload_embedding="auto"), around(8)).notices[-1]
    assert said.startswith("auto: with ") and "offload_embedding" not in said


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {"shape": replace(read_shape(KNOWN_CONFIGS[NAME]), is_tied=True)}),
        ({}, {"card": None}),
        ({}, {"start": {"target_modules": ["q_proj"], "trainable_token_indices": [7]}}),
        ({}, {"start": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}}),
        ({}, {"shape": None}),
        ({"modules_to_save": ["embed_tokens"]}, {}),
        ({"new_tokens": ["<tool>"]}, {}),
        ({"fsdp": "full_shard"}, {}),
        ({"deepspeed": "train_args/ds_z3_config.json", "train_mode": "lora"}, {}),
        ({"train_mode": "full"}, {}),
    ],
)
def test_where_the_embedding_cannot_be_offloaded_auto_is_false(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """What an earlier attempt had chosen where it could, included."""
    settled = settle(load(**OFFLOAD, **values), replace(around(7.5), **changes), {"offload_embedding": True})
    assert settled.config.model.offload_embedding is False
    assert settled.facts["chosen"]["offload_embedding"] is False


def test_several_processes_keep_the_embedding_on_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert settle(load(**OFFLOAD), around(8)).config.model.offload_embedding is False

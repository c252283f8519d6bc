"""The attention that a plan counts is the one that the run chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from component.config.load import load_config
from component.models import attention
from component.models.attention import choose_attention
from component.models.precision import resolve_precision
from component.models.tiny_families import TINY_FAMILIES, build_family_config
from component.pipeline import plan_inputs
from component.pipeline.plan_inputs import imagined_hardware, setting_of
from component.pipeline.plan_run import plan_config
from component.planning.gpus import GIB, GPUS
from component.planning.read_config import DataSize, read_workload
from component.planning.shape import FUSED_PROJECTIONS, read_shape
from component.runtime.hardware import Hardware

DEVICES = {
    "h200": imagined_hardware(GPUS["h200"]),
    "t4": imagined_hardware(GPUS["t4"]),
    "cpu": Hardware("cpu", "CPU", 64 * GIB, 64 * GIB, None, True, 1),
}
FAMILIES = sorted(FUSED_PROJECTIONS.keys() & TINY_FAMILIES.keys())


def planned_attention(model_config: dict[str, Any], hardware: Hardware, *, packing: bool) -> str:
    config = load_config(
        {"model_name_or_path": "m", "train_file": "t", "output_dir": "o", "use_unsloth": False, "packing": packing}
    )
    precision = resolve_precision(config.model, hardware)
    setting = setting_of(config, model_config, hardware, "vanilla", precision)
    shape = read_shape(model_config)
    assert shape is not None
    return read_workload(config, shape, setting).attention


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"attention_dropout": 0.1}], ids=["as it is", "dropout"])
@pytest.mark.parametrize("family", FAMILIES)
def test_as_the_run_chooses(family: str, changes: dict[str, Any], device: str, packing: bool, monkeypatch) -> None:
    """Without flash-attn, which a plan passes over where SDPA can be."""
    for module in (attention, plan_inputs):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == "flash_attn" else name)
    model_config = build_family_config(family, vocab_size=1000, token_ids={"pad_token_id": 2})
    model_config.update(changes)
    hardware = DEVICES[device]
    dtype = "float16" if device == "t4" else "bfloat16"
    chosen = choose_attention("auto", model_config, hardware, compute_dtype=dtype, packing=packing)
    assert planned_attention(model_config.to_dict(), hardware, packing=packing) == chosen.got


@pytest.mark.parametrize(
    ("family", "overrides", "has_mask"),
    [
        ("llama", [], False), ("llama", ["task_type=dpo"], True), ("llama", ["attn_implementation=eager"], True),
        ("llama", ["attn_implementation=varlen"], False), ("qwen3_moe", [], True), ("gemma2", [], True),
    ],
)  # fmt: skip
def test_rows_that_are_padded_have_a_mask_where_the_run_gives_one(family, overrides, has_mask: bool) -> None:
    keys = {"model_name_or_path": "m", "train_file": "t", "output_dir": "o", "use_unsloth": False}
    config, hardware = load_config({**keys, "per_device_train_batch_size": 8}, overrides), DEVICES["h200"]
    setting = setting_of(config, {"model_type": family}, hardware, "vanilla", resolve_precision(config.model, hardware))
    shape = read_shape(build_family_config("llama", vocab_size=1000, token_ids={"pad_token_id": 2}).to_dict())
    assert setting.masks_padding is has_mask
    for longest, is_padded in ((512, has_mask), (300, False)):
        assert read_workload(config, shape, setting, DataSize(9, 300, longest)).is_padded is is_padded


def test_flash_attn_where_it_is_installed(monkeypatch) -> None:
    """It takes what SDPA cannot: caps and sinks."""
    monkeypatch.setattr(plan_inputs, "find_spec", lambda name: name)
    for family, expected in (("gemma2", "flash_attention_2"), ("gpt_oss", "flash_attention_2"), ("llama", "sdpa")):
        model_config = build_family_config(family, vocab_size=1000, token_ids={"pad_token_id": 2}).to_dict()
        assert planned_attention(model_config, DEVICES["h200"], packing=False) == expected


def test_a_cap_that_config_json_leaves_out_is_there(repository: Path) -> None:
    """What is known of published models does not tell it; null says that there is none."""
    sizes = {"model_type": "gemma2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "vocab_size": 100}  # fmt: skip
    for cap, expected in (({}, "eager"), ({"attn_logit_softcapping": None}, "sdpa")):
        assert planned_attention({**sizes, **cap}, DEVICES["h200"], packing=False) == expected
    keys = ["use_unsloth=false", "packing=false"]
    for name in ("gemma2-9b", "gpt-oss-20b"):
        config = load_config(repository / f"train_args/sft/qlora/{name}.json", keys)
        eager = load_config(repository / f"train_args/sft/qlora/{name}.json", [*keys, "attn_implementation=eager"])
        assert plan_config(config, "h200").plan.memory == plan_config(eager, "h200").plan.memory

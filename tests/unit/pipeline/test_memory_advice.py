"""What is advised after a run was out of memory, where nothing that may change in its folder takes less."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from component.config.load import load_config
from component.models.precision import resolve_precision
from component.pipeline.choose_loader import LoaderChoice
from component.pipeline.out_of_memory import OTHER_WAYS, _advice, fitting_overrides
from component.pipeline.saving_settings import open_savings
from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.read_config import Setting, read_workload
from component.planning.shape import read_shape
from component.runtime.hardware import Hardware

NAME, GIB = "NousResearch/Meta-Llama-3-8B-Instruct", 2**30
LEAST = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "dequantize_base": False}


def prepared(memory_gib: float, model_config: Any = KNOWN_CONFIGS[NAME]) -> Any:
    config = load_config({"model_name_or_path": NAME, "train_file": "d", "output_dir": "o", **LEAST})
    card = Hardware("cuda", "test GPU", round(memory_gib * GIB), round(memory_gib * GIB), (8, 0), True, 1)
    lengths = np.full(100, 2048)
    return SimpleNamespace(
        config=config, hardware=card, loader=LoaderChoice(False, "vanilla", ""), model_config=model_config,
        precision=resolve_precision(config.model, card),
        data=SimpleNamespace(train=SimpleNamespace(lengths=lengths, num_supervised_tokens=lengths)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("memory_gib", "model_config", "saves"),
    [(9.5, KNOWN_CONFIGS[NAME], True), (4, KNOWN_CONFIGS[NAME], False), (9.5, {"model_type": "unknown"}, False)],
)
def test_settings_for_a_new_run(memory_gib: float, model_config: Any, saves: bool) -> None:
    run = prepared(memory_gib, model_config)
    assert fitting_overrides(run) == {}
    before, ways, after = _advice(run, {}).partition(OTHER_WAYS)
    assert (ways, after) == (OTHER_WAYS, " in a new one")
    named = before.removeprefix("nothing that can be changed in this output_dir takes less; use ")
    assert ("offload_embedding=true" in named) is saves is (named != "")


@pytest.mark.parametrize(
    ("overrides", "is_open"),
    [
        ({}, True),
        ({"task_type": "dpo"}, True),
        ({"task_type": "grpo"}, False),
        ({"task_type": "reward"}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"offload_head": True}, False),
        ({"train_mode": "full", "quantization": None}, False),
    ],
)
def test_when_the_head_could_be_kept_off_the_device(overrides: dict[str, Any], is_open: bool) -> None:
    keys = {key: value for key, value in overrides.items() if value is not None}
    rewards = {"reward_functions": ["exact_match"]} if keys.get("task_type") == "grpo" else {}
    config = load_config({"model_name_or_path": NAME, "train_file": "d", "output_dir": "o", **keys, **rewards})
    shape = read_shape(KNOWN_CONFIGS[NAME])
    workload = read_workload(config, shape, Setting("vanilla", "bfloat16", "bfloat16", supports_varlen=True))
    assert any(saving.key == "offload_head" for saving in open_savings(config, workload, {})) is is_open


@pytest.mark.parametrize(
    ("start", "stays"),
    [
        ({"target_modules": ["q_proj"]}, set()),
        ({"modules_to_save": ["model.embed_tokens"]}, {"offload_embedding"}),
        ({"target_modules": ["q_proj", "lm_head"]}, {"offload_head"}),
        ({"trainable_token_indices": [7]}, {"offload_embedding", "offload_head"}),
    ],
)
def test_what_the_adapter_before_trains_stays_on_the_device(start: dict[str, Any], stays: set[str]) -> None:
    config = load_config({"model_name_or_path": NAME, "train_file": "d", "output_dir": "o"})
    shape = read_shape(KNOWN_CONFIGS[NAME])
    workload = read_workload(config, shape, Setting("vanilla", "bfloat16", "bfloat16", supports_varlen=True))
    advised = {saving.key for saving in open_savings(config, workload, start)}
    assert {"offload_embedding", "offload_head"} - advised == stays

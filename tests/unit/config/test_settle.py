"""A key that a notice calls ignored has its default wherever it is read."""

from __future__ import annotations

from typing import Any

import pytest

from component.config.load import load_config
from component.config.settle import without_foreign_values

BASE = {"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}


@pytest.mark.parametrize(
    ("values", "key", "default"),
    [
        ({"train_mode": "full", "fp8_base": True}, "fp8_base", False),
        ({"train_mode": "qlora", "freeze_trainable_layers": 2}, "freeze_trainable_layers", None),
        ({"train_mode": "lora", "dequantize_base": "auto"}, "dequantize_base", False),
        ({"train_mode": "lora", "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type", "nf4"),
        ({"train_mode": "full", "lora_target_modules": ["q_proj"]}, "lora_target_modules", ["all-linear"]),
        ({"task_type": "dpo", "checkpoint_skip_layers": 2}, "checkpoint_skip_layers", 0),
        ({"task_type": "dpo", "packing": "auto"}, "packing", False),
        ({"task_type": "kto", "train_on": "last"}, "train_on", "all"),
        ({"beta": 0.5}, "beta", None),
    ],
)
def test_another_tasks_or_modes_key_has_its_default(values: dict[str, Any], key: str, default: Any) -> None:
    config = load_config({**BASE, **values})
    assert any(f"{key}: ignored; " in str(notice) for notice in config.notices)
    settled = without_foreign_values(config)
    sections = [section for name in vars(config) if hasattr(section := getattr(settled, name), key)]
    assert sections and all(getattr(section, key) == default for section in sections)
    assert settled.values[key] == default
    assert (settled.written, settled.places, settled.notices) == (config.written, config.places, config.notices)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"train_mode": "lora", "fp8_base": True},
        {"train_mode": "full", "freeze_trainable_layers": 2},
        {"packing": True, "checkpoint_skip_layers": 2, "quantization": "int8"},
        {"task_type": "dpo", "beta": 0.5, "loss_type": "sigmoid"},
    ],
)
def test_keys_that_are_read_stay(values: dict[str, Any]) -> None:
    config = load_config({**BASE, **values})
    assert without_foreign_values(config) == config

"""What a notice calls ignored changes neither a plan nor a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.describe import describe_check
from component.pipeline.plan_run import plan_config
from component.pipeline.prepare import prepare

LLAMA = "train_args/sft/qlora/llama3-8b.json"


@pytest.fixture(autouse=True)
def _at_the_root(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


def test_more_layers_than_there_are_cannot_be_trained(tiny_model: Path) -> None:
    """Said where layers that keep activations are; another mode does not read the key."""
    values = {"model_name_or_path": str(tiny_model), "train_file": "none.jsonl", "output_dir": "output/none"}
    for refused in (lambda config: list(describe_check(config)), lambda config: plan_config(config, "t4"), prepare):
        with pytest.raises(UserError, match="freeze_trainable_layers: got 3, and the model has 2 layers; use fewer"):
            refused(load_config({**values, "train_mode": "full", "freeze_trainable_layers": 3}))
    for own in ({"train_mode": "full", "freeze_trainable_layers": 2}, {"freeze_trainable_layers": 99}):
        config = load_config({**values, **own})
        assert list(describe_check(config))[-1].startswith("config: valid") and plan_config(config, "t4")


@pytest.mark.parametrize(
    ("setting", "ignored"),
    [
        (["use_unsloth=false"], "freeze_trainable_layers=2"),
        (["use_unsloth=true"], "attn_implementation=eager"),
        (["train_mode=full"], "fp8_base=true"),
        (["train_mode=full", "freeze_trainable_layers=2"], "lora_rank=512"),
        (["task_type=dpo"], "checkpoint_skip_layers=2"),
        (["task_type=dpo"], "packing=true"),
    ],
)
def test_an_ignored_key_does_not_change_a_plan(setting: list[str], ignored: str) -> None:
    as_it_is, with_key = (plan_config(load_config(LLAMA, [*setting, *more]), "h200") for more in ([], [ignored]))
    assert with_key.plan == as_it_is.plan


def test_an_ignored_key_does_not_change_a_run(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """Its weights would be rounded, and saved so."""
    ignored = {"fp8_base": True, "dequantize_base": True, "lora_dropout": 0.5}
    settings = {**tiny_settings, "output_dir": str(tmp_path / "run"), "train_mode": "full"}
    as_it_is, with_keys = (prepare(load_config({**settings, **more})) for more in ({}, ignored))
    assert (with_keys.config.model, with_keys.config.adapter) == (as_it_is.config.model, as_it_is.config.adapter)
    for key in ignored:
        assert any(f"{key}: ignored; train_mode full does not read it" in notice for notice in with_keys.notices)


@pytest.mark.parametrize(
    ("method", "mode", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "qlora", "quantized with gptq cannot be trained on"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "lora", "train_mode: lora needs 16-bit weights"),
    ],
)
def test_a_plan_refuses_the_quantized_checkpoints_that_a_run_refuses(tiny_model, tmp_path, method, mode, message):
    content = json.loads((tiny_model / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**content, "quantization_config": method}), encoding="utf-8")
    keys = {"model_name_or_path": str(tmp_path), "train_file": "t", "output_dir": "o", "train_mode": mode}
    with pytest.raises(UserError, match=message):
        plan_config(load_config(keys), "4090")

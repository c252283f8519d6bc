"""Runs of reward: adapter and score head are saved and load with transformers and PEFT alone; runs go on exactly."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from component.artifacts.metrics import read_metrics
from component.config.errors import InterruptedRun, UserError
from component.config.load import load_config
from component.models.quantization import prepare_four_bit_layers
from component.pipeline import run
from component.pipeline.prepare import prepare


@pytest.fixture(scope="module")
def settings(task_settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**task_settings["reward"], "learning_rate": 2e-3}


def load_scored(folder: Path, mode: str) -> torch.nn.Module:
    if mode == "full":
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    extra = {"quantization_config": quantization} if mode == "qlora" else {}
    pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=pad_token_id, **extra)
    prepare_four_bit_layers(model, compute_dtype="float32")  # else bitsandbytes rounds to bfloat16 on some CPUs
    return PeftModel.from_pretrained(model, folder).eval()


@pytest.mark.parametrize("mode", ["full", "lora", "qlora"])
def test_what_is_saved_is_what_was_trained(mode: str, settings: dict[str, Any], tmp_path: Path) -> None:
    values = {**settings, "train_mode": mode, "output_dir": str(tmp_path / "run")}
    run(values)
    weights = load_file(tmp_path / "run" / ("model.safetensors" if mode == "full" else "adapter_model.safetensors"))
    assert [name for name in weights if name.endswith("score.weight")]
    model = load_scored(tmp_path / "run", mode)
    margins = []
    for pair in prepare(load_config(values)).data.evaluation:
        with torch.no_grad():
            better, worse = (
                model(input_ids=torch.tensor([part.input_ids])).logits.item() for part in (pair.chosen, pair.rejected)
            )
        margins.append(better - worse)
    last = read_metrics(tmp_path / "run")[-1]
    assert sum(margins) / len(margins) == pytest.approx(last["eval_margin"], rel=1e-4)
    assert sum(margin > 0 for margin in margins) / len(margins) == pytest.approx(last["eval_accuracy"])


def test_an_interrupted_run_goes_on_exactly(
    settings: dict[str, Any],
    tmp_path: Path,
    signal_at: Any,
    trained_metrics: Callable[[Path], list[dict[str, Any]]],
) -> None:
    values = {**settings, "train_mode": "lora", "logging_steps": 2}
    run({**values, "output_dir": str(tmp_path / "left alone")})
    again = {**values, "output_dir": str(tmp_path / "stopped")}
    with signal_at("step 2/6", signal.SIGINT), pytest.raises(InterruptedRun):
        run(again)
    run(again)
    assert trained_metrics(tmp_path / "stopped") == trained_metrics(tmp_path / "left alone")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("stopped", "left alone"))
    assert one.read_bytes() == other.read_bytes()
    more = {**values, "max_steps": 1, "model_name_or_path": str(tmp_path / "stopped")}
    run({**more, "output_dir": str(tmp_path / "more")})
    before, after = (read_metrics(tmp_path / name) for name in ("stopped", "more"))
    assert after[0]["loss"] < before[0]["loss"], "the adapter and its head are where training goes on"


def test_an_adapter_of_a_language_model(
    settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    run({**tiny_settings, "train_mode": "lora", "max_steps": 1, "output_dir": str(tmp_path / "sft")})
    values = {**settings, "train_mode": "lora", "model_name_or_path": str(tmp_path / "sft")}
    with pytest.raises(UserError) as raised:
        run({**values, "output_dir": str(tmp_path / "reward")})
    assert raised.value.exit_code == 2 and "is an adapter of a language model" in str(raised.value)

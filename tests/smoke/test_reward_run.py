"""Runs of reward: adapter and score head are saved and load with transformers and PEFT alone; runs go on exactly."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from measured_run import load_scored
from safetensors.torch import load_file

from component.artifacts.metrics import read_metrics
from component.config.errors import InterruptedRun
from component.config.load import load_config
from component.pipeline import run
from component.pipeline.prepare import prepare


@pytest.fixture(scope="module")
def settings(task_settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**task_settings["reward"], "learning_rate": 2e-3}


def test_the_log_is_of_the_saved_model(settings: dict[str, Any], tmp_path: Path) -> None:
    values = {**settings, "train_mode": "lora", "output_dir": str(tmp_path / "run")}
    run(values)
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert [name for name in weights if name.endswith("score.weight")]
    model = load_scored(tmp_path / "run", "lora")
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


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_sft_then_reward(
    mode: str, settings: dict[str, Any], tiny_settings: dict[str, Any], signal_at: Any, tmp_path: Path
) -> None:
    """On the adapter of a language model, saved, resumed exactly, and loaded again as it was in memory."""
    run({**tiny_settings, "train_mode": mode, "max_steps": 1, "output_dir": str(tmp_path / "sft")})
    values = {**settings, "train_mode": mode, "lora_rank": 4, "model_name_or_path": str(tmp_path / "sft")}
    run({**values, "output_dir": str(tmp_path / "left alone")})
    with signal_at("step 2/6", signal.SIGINT), pytest.raises(InterruptedRun):
        run({**values, "output_dir": str(tmp_path / "stopped")})
    run({**values, "output_dir": str(tmp_path / "stopped")})
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("stopped", "left alone"))
    assert one.read_bytes() == other.read_bytes()
    notices = json.loads((tmp_path / "stopped" / "run.json").read_text(encoding="utf-8"))["notices"]
    assert any("its rank 8, alpha 16" in notice for notice in notices)
    assert any("whose score head is new" in notice for notice in notices)
    more = {**values, "model_name_or_path": str(tmp_path / "stopped"), "learning_rate": 0.0, "max_steps": 1}
    run({**more, "eval_on_start": True, "output_dir": str(tmp_path / "more")})
    last, again = read_metrics(tmp_path / "stopped")[-1], read_metrics(tmp_path / "more")[0]
    assert again["eval_margin"] == pytest.approx(last["eval_margin"], rel=1e-5)

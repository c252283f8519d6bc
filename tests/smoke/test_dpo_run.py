"""Runs of preference tasks: what is saved is what was trained, the reference is the start, and runs go on exactly."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from component.artifacts.metrics import read_metrics
from component.config.errors import DataError, InterruptedRun, UserError
from component.config.load import load_config
from component.data.rows import Prepared
from component.models.inference import load_for_inference
from component.pipeline import run
from component.pipeline.prepare import prepare


@pytest.fixture(scope="module")
def settings(preference_settings: dict[str, Any]) -> dict[str, Any]:
    return {**preference_settings, "task_type": "dpo"}


@pytest.fixture(scope="module")
def full_run(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpo") / "full"
    run({**settings, "train_mode": "full", "learning_rate": 1e-3, "output_dir": str(folder)})
    return folder


def decided(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["loader"]["details"]


def log_probability(model: torch.nn.Module, sample: Prepared) -> float:
    """Of the supervised tokens of a sample, in nats."""
    ids = torch.tensor([sample.input_ids])
    labels = torch.tensor([sample.labels()])[:, 1:]
    with torch.no_grad():
        log_probabilities = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    chosen = log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return float(chosen[labels != -100].sum())


def test_qlora(settings: dict[str, Any], tmp_path: Path) -> None:
    """The last line of the log is of the model in memory; the folder, loaded again, has the same log-probabilities."""
    folder = tmp_path / "run"
    run({**settings, "train_mode": "qlora", "output_dir": str(folder)})
    check_saved(folder, settings)
    assert decided(folder)["reference"] == "the starting model: its base with the adapter switched off"


def test_full(full_run: Path, settings: dict[str, Any]) -> None:
    check_saved(full_run, settings)
    assert decided(full_run)["reference"] == "the starting model, loaded a second time"


def check_saved(folder: Path, settings: dict[str, Any]) -> None:
    model, _ = load_for_inference(str(folder), device="cpu")
    held_out = prepare(load_config({**settings, "output_dir": str(folder)})).data.evaluation
    last = read_metrics(folder)[-1]
    for side in ("chosen", "rejected"):
        mean = sum(log_probability(model, getattr(pair, side)) for pair in held_out) / len(held_out)
        assert mean == pytest.approx(last[f"eval_logps/{side}"], rel=1e-5)
    first = read_metrics(folder)[0]
    assert first["loss"] == pytest.approx(0.693147, rel=1e-5), "policy and reference differ before the first step"
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert last["eval_rewards/margins"] != pytest.approx(0, abs=1e-3), "nothing was learned"
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "entropy"} <= first.keys()
    assert first["supervised_tokens"] > 0 and "num_tokens" not in first


def test_references_computed_before_give_the_same_run(
    full_run: Path, settings: dict[str, Any], tmp_path: Path, trained_metrics: Callable[[Path], list[dict[str, Any]]]
) -> None:
    settings = {**settings, "train_mode": "full", "learning_rate": 1e-3, "precompute_ref_log_probs": True}
    run({**settings, "output_dir": str(tmp_path / "run")})
    assert "computed beforehand" in decided(tmp_path / "run")["reference"]
    loaded, computed = trained_metrics(full_run), trained_metrics(tmp_path / "run")
    for lines in (loaded, computed):
        lines[0].pop("rewards/accuracies")  # before the first step all rewards are 0, and rounding says which is higher
    for one, other in zip(loaded, computed, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


def test_an_interrupted_run_goes_on_exactly(
    settings: dict[str, Any], tmp_path: Path, signal_at: Any, trained_metrics: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """Stopped between two logged lines: the metrics since the line before are not lost."""
    settings = {**settings, "train_mode": "lora", "disable_dropout": False, "lora_dropout": 0.1, "logging_steps": 2}
    run({**settings, "output_dir": str(tmp_path / "left alone")})
    again = {**settings, "output_dir": str(tmp_path / "stopped")}
    with signal_at("step 2/6", signal.SIGINT), pytest.raises(InterruptedRun):
        run(again)
    assert (tmp_path / "stopped" / "checkpoint-3").is_dir()
    run(again)
    assert trained_metrics(tmp_path / "stopped") == trained_metrics(tmp_path / "left alone")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("stopped", "left alone"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_training_goes_on_from_a_run(
    mode: str, settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """The adapter of sft is trained further, against itself as it was to the last bit; the copy is not saved."""
    sft = {**tiny_settings, "train_mode": mode, "new_tokens": ["Say the"], "max_steps": 2}
    run({**sft, "output_dir": str(tmp_path / "sft")})
    start = {**settings, "train_mode": mode, "model_name_or_path": str(tmp_path / "sft")}
    run({**start, "output_dir": str(tmp_path / "dpo")})
    first = read_metrics(tmp_path / "dpo")[0]
    assert (first["rewards/margins"], first["loss"]) == (0, pytest.approx(math.log(2), abs=1e-7))
    assert "frozen copy of the adapter" in decided(tmp_path / "dpo")["reference"]
    check_saved(tmp_path / "dpo", start)
    assert not (tmp_path / "dpo" / "ref").exists()


def test_a_run_that_goes_on_from_a_run_is_interrupted_and_resumed(
    settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path, signal_at: Any
) -> None:
    """Its checkpoints hold the adapter that is trained, not the frozen copy of its start alone."""
    run({**tiny_settings, "train_mode": "lora", "max_steps": 1, "output_dir": str(tmp_path / "sft")})
    start = {**settings, "train_mode": "lora", "model_name_or_path": str(tmp_path / "sft"), "max_steps": 4}
    run({**start, "output_dir": str(tmp_path / "left alone")})
    again = {**start, "output_dir": str(tmp_path / "stopped")}
    with signal_at("step 2/4", signal.SIGINT), pytest.raises(InterruptedRun):
        run(again)
    run(again)
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("stopped", "left alone"))
    assert one.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "stopped").glob("checkpoint-*/ref"))


def test_a_reference_of_ones_own(full_run: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """Another model of the same tokens is compared with; the first loss is no longer that of equals."""
    run({**settings, "train_mode": "lora", "reference_model_name_or_path": str(full_run), "max_steps": 1,
         "output_dir": str(tmp_path / "run")})  # fmt: skip
    assert decided(tmp_path / "run")["reference"] == f"the model {full_run}"
    assert read_metrics(tmp_path / "run")[0]["loss"] != pytest.approx(0.693147, rel=1e-3)


def test_a_reference_of_another_vocabulary(settings: dict[str, Any], other_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError) as raised:
        run({**settings, "reference_model_name_or_path": str(other_model), "output_dir": str(folder)})
    assert raised.value.exit_code == 2
    assert f"{other_model} has another vocabulary than the model" in str(raised.value)


def test_data_of_another_task(settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = {
        "set task_type: dpo, orpo, cpo or reward": {**tiny_settings, "train_file": settings["train_file"]},
        "set task_type: sft": {**settings, "eval_split": None, "train_file": tiny_settings["train_file"]},
    }
    for number, (way_out, values) in enumerate(wrong.items()):
        with pytest.raises((DataError, UserError)) as raised:
            run({**values, "output_dir": str(tmp_path / str(number))})
        assert raised.value.exit_code == 2 and way_out in str(raised.value)
        assert not (tmp_path / str(number)).exists()


def test_three_configs_one_after_the_other(
    tiny_model: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's configs, shortened: pretrain in full, sft on that run, dpo on the run of sft."""
    monkeypatch.chdir(repository)
    model = tiny_model
    for name in ("pretrain", "sft-qlora", "dpo-qlora"):
        settings = {"eval_strategy": "no", "eval_file": None, "eval_split": None, "use_cpu": True, "bf16": False}
        run(f"train_args/demo/{name}.json", model_name_or_path=str(model), output_dir=str(tmp_path / name),
            max_steps=2, per_device_train_batch_size=4, **settings)  # fmt: skip
        model = tmp_path / name
    adapter = json.loads((model / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == str(tmp_path / "pretrain") and adapter["r"] == 32
    assert "frozen copy of the adapter" in decided(model)["reference"]
    load_for_inference(str(model), device="cpu")

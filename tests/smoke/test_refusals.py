"""Runs that end early, each with its exit code and lines that say what to do; no tracebacks."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from component.config.errors import DataError, GuardError, MachineError, UserError
from component.config.load import load_config
from component.data.rows import PreparedPair
from component.pipeline import run
from component.pipeline.prepare import prepare
from component.runtime.hardware import detect_hardware


def message_of(settings: dict, folder: Path, **overrides: object) -> str:
    """The one line of the refusal; nothing was written."""
    with pytest.raises(UserError) as raised:
        run({**settings, "output_dir": str(folder / "run"), **overrides})
    assert raised.value.exit_code == 2 and len(raised.value.messages) == 1
    assert not (folder / "run").exists()
    return raised.value.messages[0]


def test_missing_data(tiny_settings, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "none.jsonl") in message_of(tiny_settings, tmp_path, train_file="none.jsonl")


def test_missing_model(tiny_settings, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = message_of(tiny_settings, tmp_path, model_name_or_path="./models/none")
    assert message.startswith("model_name_or_path: ") and str(tmp_path / "models/none") in message


def test_hub_model_without_a_hub(tiny_settings, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = message_of(tiny_settings, tmp_path, model_name_or_path="nobody/nothing-of-this-name")
    assert "nobody/nothing-of-this-name" in message and "the hub is switched off" in message


@pytest.mark.skipif(detect_hardware(True).supports_bf16, reason="this CPU is fast at bfloat16")
def test_bf16_where_there_is_none(tiny_settings, tmp_path) -> None:
    assert "has no fast bfloat16; drop bf16" in message_of(tiny_settings, tmp_path, bf16=True)


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_missing_reporter(tiny_settings, tmp_path) -> None:
    assert message_of(tiny_settings, tmp_path, report_to=["wandb"]) == (
        "report_to: wandb: the package wandb is not installed; pip install wandb, or drop the setting"
    )


@pytest.mark.parametrize(
    ("task", "name", "num_rows"),
    [(task, "preference", 5) for task in ("dpo", "orpo", "cpo", "reward")]
    + [("kto", "kto", 6), ("grpo", "prompt_only", 5)],
)
def test_the_data_of_every_task_can_be_looked_at(
    tiny_settings, tmp_path, repository, task: str, name: str, num_rows: int
) -> None:
    file = str(repository / "data" / "samples" / f"{name}.jsonl")
    settings = {**tiny_settings, "train_file": file, "task_type": task, "output_dir": str(tmp_path / "run")}
    if task == "grpo":
        settings |= {"reward_functions": "numeric_answer", "max_completion_length": 32}
    data = prepare(load_config(settings, {})).data
    assert (data.report.rows_read, data.report.rows_used, len(data.train)) == (num_rows, num_rows, num_rows)
    assert data.report.files[0].data_format == name
    assert isinstance(data.train[0], PreparedPair) == (name == "preference")
    assert (data.train[0].num_supervised_tokens > 0) == (task != "grpo")


def test_too_little_disk(tiny_settings, tmp_path) -> None:
    """The tiny adapter at a checkpoint a step, over more steps than any disk has room for."""
    with pytest.raises(MachineError, match="GiB free and the run writes up to .* GiB; free some, or lower"):
        run(tiny_settings, output_dir=str(tmp_path / "run"), max_steps=10**9, save_steps=1)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_process_that_is_refused(tiny_settings, tmp_path, run_train) -> None:
    finished = run_train({**tiny_settings, "train_file": "none.jsonl", "output_dir": "run"}, tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.count("\n") == 1 and str(tmp_path / "none.jsonl") in finished.stderr


@pytest.mark.parametrize("bad", ['{"conversation": ', '{"conversation": [{"human": "a", "assistant": " "}]}'])
def test_bad_rows_are_found_before_the_model_loads(tiny_settings, tiny_model, tmp_path, monkeypatch, bad: str) -> None:
    """A model whose weights have lost a tensor is refused when it loads; bad rows are refused before."""
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    settings = {**tiny_settings, "model_name_or_path": str(model), "train_file": "train.jsonl"}
    good = '{"conversation": [{"human": "a", "assistant": "b"}]}\n'
    Path("train.jsonl").write_text(good)
    with pytest.raises(UserError, match="model.norm.weight"):
        run({**settings, "output_dir": str(tmp_path / "good")})
    Path("train.jsonl").write_text(f"{good}{bad}\n")
    with pytest.raises(DataError) as error:
        run({**settings, "output_dir": str(tmp_path / "bad")})
    assert error.value.exit_code == 2 and error.value.messages[1].startswith("train.jsonl:2: ")
    assert not (tmp_path / "bad").exists()


def nan_model(tiny_model: Path, folder: Path) -> Path:
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_that_are_not_numbers(tiny_settings, tiny_model, tmp_path, run_train) -> None:
    settings = {**tiny_settings, "model_name_or_path": str(nan_model(tiny_model, tmp_path / "model"))}
    finished = run_train({**settings, "output_dir": "run"}, tmp_path)
    assert finished.returncode == 3
    assert finished.stderr.splitlines()[-1].startswith("loss is nan at step 1: training has diverged")
    assert "Traceback" not in finished.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (manifest["status"], manifest["attempts"][0]["exit_code"]) == ("stopped", 3)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss"] == "NaN"
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("saving", [{"save_steps": 1}, {"save_strategy": "no"}], ids=["checkpoints", "none"])
def test_divergence_between_logged_steps(tiny_settings, tmp_path, saving) -> None:
    """Losses are logged too seldom to see it: neither a checkpoint nor a final model of such weights is written."""
    settings = {**tiny_settings, **saving, "train_mode": "full", "optim": "sgd", "max_grad_norm": 0.0}
    settings |= {"learning_rate": 1e30, "warmup_steps": 0, "logging_steps": 100, "logging_strategy": "no"}
    with pytest.raises(GuardError, match="(loss|grad_norm) is (nan|inf) at step [23]: training has diverged"):
        run(settings, output_dir=str(tmp_path / "run"), logging_first_step=False)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    for weights in (tmp_path / "run").glob("checkpoint-*/model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(weights).values()), weights

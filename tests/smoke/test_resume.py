"""Killed anywhere, a run goes on as if it had never stopped; another run's folder is never written over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import InterruptedRun, UserError
from component.pipeline import run


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def interrupted(sft_settings, signal_at, tmp_path_factory) -> Path:
    """A run with checkpoints of steps 2 and 4, interrupted after step 5."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with signal_at("step 4/9", signal.SIGINT), pytest.raises(InterruptedRun):
        run({**sft_settings, "save_steps": 2, "output_dir": str(folder)})
    return folder


@pytest.fixture
def stopped(interrupted: Path, tmp_path: Path, sft_settings) -> tuple[dict[str, Any], Path]:
    """A copy of that run, with its settings."""
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    return {**sft_settings, "save_steps": 2, "output_dir": str(folder)}, folder


@pytest.mark.parametrize(
    "places",
    [
        {"step 1/9": 2, "step 3/9  eval": 4, "step 6/9  eval": 7},
        {"step 2/9": 3, "step 4/9": 5, "step 6/9  loss": 7},
    ],
    ids=["inside", "at-ends"],
)
def test_interrupted_again_and_again(
    places: dict[str, int], sft_settings, finished_run, signal_at, tmp_path, trained_metrics
) -> None:
    """Inside an epoch, at its end, during an evaluation: what comes out at last is that of the run left alone.

    A signal that arrives while step N is logged is heeded after step N + 1. Lines are logged after steps 1, 2, 4, 6, 8
    and 9, an epoch has three steps, and dropout draws from the random state.
    """
    settings = {**sft_settings, "output_dir": str(tmp_path / "run")}
    for number, (line, stops_after) in enumerate(places.items()):
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        with signal_at(line, kind), pytest.raises(InterruptedRun) as raised:
            run(settings)
        assert raised.value.exit_code == 130
        assert str(raised.value).startswith(f"stopped by {kind.name} after step {stops_after};")
        manifest = read_manifest(tmp_path / "run")
        assert (manifest["status"], manifest["attempts"][-1]["to_step"]) == ("interrupted", stops_after)
        assert (tmp_path / "run" / f"checkpoint-{stops_after}" / "optimizer.pt").is_file()
    with signal_at("step 8/9", signal.SIGTERM):
        run(settings)  # the step after is the last one: there is nothing left to interrupt

    assert trained_metrics(tmp_path / "run") == trained_metrics(finished_run)
    for name in ("adapter_model.safetensors", "generations.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (finished_run / name).read_bytes(), name
    manifest, expected = read_manifest(tmp_path / "run"), read_manifest(finished_run)
    assert manifest["status"] == "finished"
    assert [attempt["from_step"] for attempt in manifest["attempts"]] == [0, *places.values()]
    for name in ("first_loss", "last_loss", "eval_loss", "supervised_tokens", "total_tokens"):
        assert manifest["metrics"][name] == expected["metrics"][name], name


@pytest.mark.slow
def test_a_process_is_interrupted(
    sft_settings, finished_run, tmp_path, train_command, train_environment, run_train, trained_metrics
) -> None:
    """A scheduler's SIGTERM to train.py and its data workers: a checkpoint, a line that says how to go on, exit 130."""
    settings = {**sft_settings, "dataloader_num_workers": 2, "output_dir": "run"}
    command = train_command(settings, tmp_path)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=train_environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "step 2/9" in line:
            os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 130, "".join(lines)
    assert "Traceback" not in "".join(lines)
    step = read_manifest(tmp_path / "run")["attempts"][-1]["to_step"]
    assert 2 < step < 9
    assert lines[-1] == (
        f"stopped by SIGTERM after step {step}; run/checkpoint-{step} is complete; run the same command to go on\n"
    )
    again = run_train(settings, tmp_path)
    assert again.returncode == 0, again.stderr
    assert trained_metrics(tmp_path / "run") == trained_metrics(finished_run)


def test_a_finished_run_is_left_alone(sft_settings, finished_run, capsys) -> None:
    before = snapshot(finished_run)
    began = time.monotonic()
    result = run({**sft_settings, "output_dir": str(finished_run)})
    assert result.was_finished and result.global_step == 9
    assert result.metrics["eval_loss"] == read_manifest(finished_run)["metrics"]["eval_loss"]
    assert f"{finished_run} holds this run, finished; nothing to do" in capsys.readouterr().err
    assert snapshot(finished_run) == before and time.monotonic() - began < 5


def test_killed_while_the_final_model_was_saved(sft_settings, finished_run, tmp_path, trained_metrics) -> None:
    """The last checkpoint is of the last step, in the middle of an epoch: nothing more is trained."""
    settings = {**sft_settings, "max_steps": 4, "logging_steps": 1, "output_dir": str(tmp_path / "run")}
    run(settings)
    expected = snapshot(tmp_path / "run")
    metrics = trained_metrics(tmp_path / "run")
    for name in ("adapter_model.safetensors", "adapter_config.json", "loss.png"):
        (tmp_path / "run" / name).unlink()
    manifest = read_manifest(tmp_path / "run")
    manifest["status"] = manifest["attempts"][-1]["status"] = "running"
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    result = run(settings)
    assert (result.global_step, result.was_finished) == (4, False)
    assert trained_metrics(tmp_path / "run") == metrics
    name = "adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == expected[name]
    attempts = read_manifest(tmp_path / "run")["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["interrupted", "finished"]


def test_other_settings_and_other_data_are_refused(stopped, tmp_path) -> None:
    settings, folder = stopped
    before = snapshot(folder)
    with pytest.raises(UserError) as raised:
        run(settings, learning_rate=0.5, lora_rank=4)
    head, *differences = raised.value.messages
    assert head.startswith(f"output_dir: {folder} holds a run with other settings or data; choose another output_dir")
    assert differences == ["learning_rate: was 0.01, is 0.5", "lora_rank: was 8, is 4"]
    assert raised.value.exit_code == 2

    data = tmp_path / "data.jsonl"
    data.write_text(Path(settings["train_file"]).read_text().replace("three", "seven"))
    with pytest.raises(UserError, match="train_file: was"):
        run(settings, train_file=str(data))
    assert snapshot(folder) == before


def test_changed_content_of_the_same_file_is_refused(tiny_settings, conversations, tmp_path) -> None:
    data = tmp_path / "data.jsonl"
    shutil.copy(conversations, data)
    settings = {**tiny_settings, "train_file": str(data), "max_steps": 1, "output_dir": str(tmp_path / "run")}
    run(settings)
    data.write_text(data.read_text().replace("three", "seven"))
    with pytest.raises(UserError) as raised:
        run(settings)
    assert raised.value.messages[1:] == ("the content of data has changed since that run",)


def test_cosmetic_settings_may_change(stopped, finished_run, trained_metrics) -> None:
    settings, folder = stopped
    run(settings, disable_tqdm=True, run_name="again")
    assert trained_metrics(folder)[-1] == trained_metrics(finished_run)[-1]


def test_never_wants_an_empty_folder(stopped) -> None:
    settings, folder = stopped
    before = snapshot(folder)
    with pytest.raises(UserError, match=f"--resume never: {folder} is not empty; choose a new output_dir or empty it"):
        run(settings, resume="never")
    assert snapshot(folder) == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: truncate(folder / "adapter_model.safetensors"), "adapter_model.safetensors has"),
        (lambda folder: truncate(folder / "optimizer.pt"), "optimizer.pt is cut off or empty"),
        (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    ],
    ids=["weights", "optimizer", "state"],
)
def test_a_damaged_checkpoint_is_left_out(
    stopped, damage: Callable[[Path], None], reason: str, finished_run, trained_metrics, capsys
) -> None:
    settings, folder = stopped
    damage(folder / "checkpoint-5")
    run(settings)
    assert f"checkpoint left out: {folder / 'checkpoint-5'}: {reason}" in capsys.readouterr().err
    assert read_manifest(folder)["attempts"][-1]["resumed_from"] == str(folder / "checkpoint-4")
    assert trained_metrics(folder) == trained_metrics(finished_run)


def test_no_usable_checkpoint_is_an_error(stopped) -> None:
    settings, folder = stopped
    for number in (2, 4, 5):
        (folder / f"checkpoint-{number}" / "scheduler.pt").write_bytes(b"")
    before = snapshot(folder)
    with pytest.raises(UserError) as raised:
        run(settings)
    head, *reasons = raised.value.messages
    assert head.startswith(f"output_dir: none of the checkpoints in {folder} can be resumed from")
    assert reasons == [f"{folder}/checkpoint-{number}: scheduler.pt is cut off or empty" for number in (2, 4, 5)]
    assert snapshot(folder) == before


def test_a_named_checkpoint(stopped, finished_run, trained_metrics) -> None:
    settings, folder = stopped
    with pytest.raises(UserError, match="no such folder"):
        run(settings, resume=str(folder / "checkpoint-3"))
    run(settings, resume=str(folder / "checkpoint-2"))
    assert read_manifest(folder)["attempts"][-1]["from_step"] == 2
    assert trained_metrics(folder) == trained_metrics(finished_run)


def test_early_stopping_goes_on_counting(sft_settings, tmp_path, trained_metrics, signal_at) -> None:
    """The evaluation gets no better than at first: five more end the run, whether it was interrupted or not.

    The last interrupt falls on the step that ends it: the attempt after that trains nothing.
    """
    settings = {
        **sft_settings,
        "learning_rate": 0.0,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "early_stopping_patience": 5,
        "num_eval_generations": 0,
        "logging_steps": 1,
    }
    alone = run({**settings, "output_dir": str(tmp_path / "alone")})
    assert alone.global_step == 6
    again = {**settings, "output_dir": str(tmp_path / "again")}
    for line in ("step 1/9  loss", "step 3/9  loss", "step 5/9  loss"):
        with signal_at(line, signal.SIGINT), pytest.raises(InterruptedRun):
            run(again)
    assert run(again).global_step == 6
    assert trained_metrics(tmp_path / "again") == trained_metrics(tmp_path / "alone")

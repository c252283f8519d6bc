"""What is done with an output_dir that holds something already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from component.artifacts.manifest import Manifest
from component.config.errors import UserError
from component.pipeline.open_run import OWN_FILES, OpenedRun, hash_config, open_run


def content(**config: Any) -> dict[str, Any]:
    return {"config": config, "hashes": {"config": hash_config(config)}}


def open_folder(folder: Path, resume: str = "auto", **config: Any) -> OpenedRun:
    prepared = SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(output_dir=str(folder))))
    return open_run(prepared, content(**config), resume)


def test_an_attempt_that_left_nothing_is_replaced(tmp_path: Path) -> None:
    open_folder(tmp_path, lora_rank=4).manifest.begin_attempt(from_step=0)
    opened = open_folder(tmp_path, lora_rank=8)
    assert opened.manifest.content["attempts"] == []
    assert Manifest.load(tmp_path).content["config"] == {"lora_rank": 8}


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"]
)
def test_weights_are_never_written_over(tmp_path: Path, name: str) -> None:
    open_folder(tmp_path, lora_rank=4).manifest.begin_attempt(from_step=0)
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(UserError) as raised:
        open_folder(tmp_path, lora_rank=8)
    assert raised.value.messages == (
        f"output_dir: {tmp_path} holds a run with other settings or data; choose another output_dir, or take these "
        "back:",
        "lora_rank: was 4, is 8",
    )
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError) as raised:
        open_folder(tmp_path, lora_rank=4)
    assert str(raised.value) == f"output_dir: {tmp_path} holds {name} but no run.json; choose another folder"
    assert (tmp_path / name).read_bytes() == b"weights"


def test_a_run_from_before_a_key_was_there_goes_on(tmp_path: Path) -> None:
    """It ran as the key's default has it; another value is a difference."""
    open_folder(tmp_path, lora_rank=4).manifest.begin_attempt(from_step=0)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    later = {"lora_rank": 4, "tiled_mlp": False, "modules_to_save": [], "checkpoint_skip_layers": 0}
    with pytest.raises(UserError) as raised:
        open_folder(tmp_path, **later | {"tiled_mlp": True})
    assert raised.value.messages[1:] == ("tiled_mlp: was false, is true",)
    open_folder(tmp_path, **later)


def test_the_lock_is_kept_with_the_opened_run(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from pathlib import Path; from component.artifacts.lock import lock_folder;"
        "lock_folder(Path(sys.argv[1]))",
        str(tmp_path),
    ]
    first = open_folder(tmp_path, lora_rank=4)
    second = open_folder(tmp_path, lora_rank=4)
    assert first.lock is second.lock
    del first
    refused = subprocess.run(
        command, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=False
    )
    assert "is being written by another process" in refused.stderr
    del second
    subprocess.run(command, cwd=Path(__file__).resolve().parents[3], check=True)


def test_the_lock_file_does_not_fill_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert open_folder(tmp_path, "never", lora_rank=4).manifest.status == "created"


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError) as raised:
        open_folder(tmp_path, lora_rank=4)
    assert str(raised.value) == (
        f"output_dir: {tmp_path / name} is a folder where the run writes a file; remove it or choose another output_dir"
    )


@pytest.mark.parametrize(
    ("resume", "reason"),
    [
        ("x" * 5000, "not a path (File name too long)"),
        ("a\0b", "no such folder"),
        ("", "not a checkpoint of"),
        ("checkpoint-3", "no such folder"),
    ],
)
def test_a_checkpoint_that_cannot_be_one_is_named(tmp_path: Path, resume: str, reason: str) -> None:
    open_folder(tmp_path, lora_rank=4)
    with pytest.raises(UserError) as raised:
        open_folder(tmp_path, resume, lora_rank=4)
    (message,) = raised.value.messages
    assert message.startswith(f"--resume {resume[:200]}") and reason in message and len(message) < 500


def test_a_damaged_line_of_the_metrics_is_found_before_training(tmp_path: Path) -> None:
    open_folder(tmp_path, lora_rank=4)
    before = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": "zork"}\n')
    with pytest.raises(UserError, match=r'metrics.jsonl:1: loss: got "zork", which is no number; remove the line'):
        open_folder(tmp_path, lora_rank=4)
    assert json.loads((tmp_path / "run.json").read_text()) == before

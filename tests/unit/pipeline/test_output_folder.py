"""A run writes into a folder of its own and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from component.artifacts.manifest import Manifest
from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.output_folder import check_output_dir


def refuse(output_dir: Path | str, **values: object) -> str:
    config = load_config(
        {"model_name_or_path": "m", "train_file": "d/t.jsonl", "output_dir": str(output_dir), **values}
    )
    with pytest.raises(UserError) as raised:
        check_output_dir(config)
    (message,) = raised.value.messages
    return message


def accept(output_dir: Path | str, **values: object) -> None:
    check_output_dir(
        load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": str(output_dir), **values})
    )


def test_new_empty_and_earlier_runs_are_fine(tmp_path: Path) -> None:
    accept(tmp_path / "new" / "deeper")
    accept(tmp_path)
    (tmp_path / ".hidden").touch()
    accept(tmp_path)
    Manifest.create(tmp_path, {})
    accept(tmp_path)
    assert not (tmp_path / "new").exists()


def test_what_is_not_a_run_is_kept(tmp_path: Path) -> None:
    for name in ("d", "c", "b", "a"):
        (tmp_path / name).touch()
    expected = (
        f"output_dir: {tmp_path} holds a, b, c, ... and no run.json, so it is not a run; choose another output_dir"
    )
    assert refuse(tmp_path) == expected


def test_files_are_no_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert refuse(file) == f"output_dir: {file} is not a folder; choose another output_dir"
    expected = f"output_dir: {file} is a file, so {file}/a/b cannot be made; choose another output_dir"
    assert refuse(file / "a" / "b") == expected
    assert refuse("x" * 300) == "output_dir: File name too long; choose another output_dir"


@pytest.mark.parametrize("key", ["model_name_or_path", "tokenizer_name_or_path"])
def test_the_model_is_not_overwritten(tmp_path: Path, key: str) -> None:
    message = refuse(tmp_path / "." / "", **{key: str(tmp_path)})
    assert (
        message
        == f"output_dir: {tmp_path} is the folder of {key}, which a run would overwrite; choose another output_dir"
    )


@pytest.mark.parametrize("key", ["train_file", "eval_file"])
def test_the_data_is_not_overwritten(tmp_path: Path, key: str) -> None:
    Manifest.create(tmp_path, {})
    for value in (str(tmp_path), str(tmp_path / "rows.jsonl")):
        assert f"is the folder of {key}" in refuse(tmp_path, **{key: value})


def test_the_working_directory_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is the folder of the working directory" in refuse(".")

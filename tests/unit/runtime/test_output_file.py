"""Files for output are looked at before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from component.config.errors import UserError
from component.runtime.output_file import check_output_file


def test_a_new_file_and_an_existing_one_can_be_written(tmp_path: Path) -> None:
    check_output_file("--json", tmp_path / "new.jsonl")
    (tmp_path / "old.jsonl").write_text("kept")
    check_output_file("--json", tmp_path / "old.jsonl")
    assert (tmp_path / "old.jsonl").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["old.jsonl"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "--json {}: a folder; name a file in it"),
        ("pipe", "--json {}: not a regular file; name another"),
        ("absent/x.jsonl", "--json {}: {folder}/absent does not exist; make that folder or name another"),
        ("file/x.jsonl", "--json {}: {folder}/file is no folder; name another"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as caught:
        check_output_file("--json", tmp_path / name)
    assert str(caught.value) == message.format(tmp_path / name, folder=tmp_path)


def test_a_folder_in_which_no_file_can_be_made() -> None:
    """As /proc is, even for root."""
    with pytest.raises(UserError, match="^--json /proc/x.jsonl: /proc cannot be written .*; name another folder$"):
        check_output_file("--json", Path("/proc/x.jsonl"))

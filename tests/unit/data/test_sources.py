"""Which files an entry names, and what is read from them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import DataError, UserError
from component.data.rows import Failure
from component.data.sources import find_files, hash_files, read_records


def write(path: Path, content: str | bytes = "{}\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, Any]]:
    """Line and value, or line and reason, of each record."""
    records = list(read_records(path))
    assert {record.source.file for record in records} <= {str(path)}
    return [(item.source.line, item.reason if isinstance(item, Failure) else item.value) for item in records]


def found(entries: list[str], row_kind: str = "messages") -> tuple[list[str], tuple[str, ...]]:
    files = find_files(entries, key="train_file", row_kind=row_kind)
    return [str(path) for path in files.paths], files.notices


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data/ in it."""
    for name in ("b.jsonl", "a.json", "deep/c.jsonl", "deep/README.md", ".hidden.jsonl", ".git/x.jsonl"):
        write(tmp_path / "data" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_read_recursively_in_order(folder: Path) -> None:
    paths, notices = found(["data"])
    assert paths == ["data/a.json", "data/b.jsonl", "data/deep/c.jsonl"]
    assert notices == ("train_file: left out data/deep/README.md: only .jsonl, .json are read for this task",)
    paths, notices = found(["data"], "text")
    assert paths == ["data/a.json", "data/b.jsonl", "data/deep/README.md", "data/deep/c.jsonl"]
    assert notices == ()


def test_links_are_followed_and_loops_end(folder: Path) -> None:
    (folder / "data" / "deep" / "loop").symlink_to(folder / "data", target_is_directory=True)
    (folder / "data" / "broken.jsonl").symlink_to(folder / "nowhere")
    write(folder / "elsewhere" / "d.jsonl")
    (folder / "data" / "link").symlink_to(folder / "elsewhere", target_is_directory=True)
    assert found(["data"])[0] == ["data/a.json", "data/b.jsonl", "data/deep/c.jsonl", "data/link/d.jsonl"]


def test_globs(folder: Path) -> None:
    assert found(["data/*.json*"])[0] == ["data/a.json", "data/b.jsonl"]
    assert found(["data/**/*.jsonl"])[0] == ["data/b.jsonl", "data/deep/c.jsonl"]
    assert found(["data/d*"])[0] == ["data/deep/c.jsonl"]
    write(folder / "odd[1].jsonl")
    assert found(["odd[1].jsonl"])[0] == ["odd[1].jsonl"]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    paths, notices = found(["data/b.jsonl", "data/*.jsonl"])
    assert paths == ["data/b.jsonl"]
    assert notices == ("train_file: data/b.jsonl named more than once; read once",)


def test_what_cannot_be_found(folder: Path) -> None:
    (folder / "empty").mkdir()
    write(folder / "table.csv")
    kinds = ".jsonl, .json"
    cases = {
        "nowhere.jsonl": f"nowhere.jsonl does not exist (looked for {folder}/nowhere.jsonl); "
        "correct the path, which is relative to the working directory",
        "no*.jsonl": f"no*.jsonl matches no file (looked for {folder}/no*.jsonl); correct the pattern",
        "empty": f"empty holds no data file for this task (looked in {folder}/empty); "
        f"put {kinds} files there or name another place",
        "table.csv": f"table.csv is of a kind that is not read; supported are {kinds}",
        "data/deep/README.md": "data/deep/README.md is plain text, which has no conversations; "
        f"give {kinds} files, or set task_type: pretrain",
    }
    for entry, message in cases.items():
        with pytest.raises(UserError) as caught:
            found([entry])
        assert str(caught.value) == f"train_file: {message}"


def test_hashes(folder: Path) -> None:
    path = write(folder / "x.jsonl", "abc")
    assert hash_files([path], key="train_file") == {str(path): hashlib.sha256(b"abc").hexdigest()}
    with pytest.raises(UserError) as caught:
        hash_files([folder / "gone.jsonl"], key="eval_file")
    assert str(caught.value) == (
        f"eval_file: {folder}/gone.jsonl cannot be read (No such file or directory); check its permissions"
    )


def test_json_lines(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "\xff"}\n{"a": \n"x"\n{"a": "caf\xc3\xa9\xe2\x80\xa8"}'
    assert read(write(tmp_path / "x.jsonl", content)) == [
        (1, {"a": 1}),
        (4, "invalid UTF-8: byte 8 of the line"),
        (5, "bad JSON: expecting value, column 7"),
        (6, "not an object: a string"),
        (7, {"a": "café\u2028"}),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[\n{"a": 1}\n]', [(2, {"a": 1})]),
        ('\ufeff[{"a": 1},\n {"a": 2}]', [(1, {"a": 1}), (2, {"a": 2})]),
        ('{"a": 1}\n\n{"a": 2}\n', [(1, {"a": 1}), (3, {"a": 2})]),
        ('{"a": 1\n{"a": 2}\n', [(1, "bad JSON: expecting ',' delimiter, column 8"), (2, {"a": 2})]),
        ('\ufeff{"a": 1}\n5\n', [(1, {"a": 1}), (2, "not an object: a number")]),
        ('{\n "a": 1\n}\n{\n "a": 2\n}\n', [(1, {"a": 1}), (4, {"a": 2})]),
        (b'[{"a": 1},\n{"a": "\xff"},\n{"a": 3}]', [(1, {"a": 1}), (2, "invalid UTF-8"), (3, {"a": 3})]),
        ("", []),
        ("[]", []),
    ],
)
def test_json(tmp_path: Path, content: str | bytes, expected: list[tuple[int, Any]]) -> None:
    assert read(write(tmp_path / "x.json", content)) == expected


def test_a_broken_array_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", '[\n{"a": 1},\n{"a": ')
    with pytest.raises(DataError, match=f"^{path}:3: bad JSON: expecting value, column 7; "):
        read(path)


def test_documents(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.txt", "\ufeffa\r\nb\n")) == [(1, {"text": "a\r\nb\n"})]
    assert read(write(tmp_path / "x.MD", "# a")) == [(1, {"text": "# a"})]
    assert read(write(tmp_path / "y.txt", b"a\nb\xff")) == [(2, "invalid UTF-8: byte 4 of the file")]

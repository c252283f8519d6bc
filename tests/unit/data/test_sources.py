"""Which files an entry names, and what is read from them."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from component.artifacts.manifest import Manifest
from component.config.errors import DataError, MachineError, UserError
from component.data.documents import PART_BYTES
from component.data.records import MAX_RECORD_BYTES, Record
from component.data.rows import Failure
from component.data.sources import DataFile, find_files, hash_files, read_records


def write(path: Path, content: str | bytes = "{}\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, Any]]:
    """Line and value, or line and reason, of each record."""
    records = list(read_records(DataFile(path, str(path))))
    assert {record.source.file for record in records} <= {str(path)}
    return [(item.source.line, item.reason if isinstance(item, Failure) else item.value) for item in records]


def found(entries: list[str], row_kind: str = "messages") -> tuple[list[str], tuple[str, ...]]:
    files = find_files(entries, key="train_file", row_kind=row_kind)
    return [file.name for file in files.files], files.notices


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
    assert notices == (
        "train_file: left out data/deep/README.md: "
        "only .jsonl, .json, .csv, .tsv, .parquet, .arrow are read for this task",
    )
    paths, notices = found(["data"], "text")
    assert paths == ["data/a.json", "data/b.jsonl", "data/deep/README.md", "data/deep/c.jsonl"]
    assert notices == ()


def test_links_are_followed_and_loops_end(folder: Path) -> None:
    (folder / "data" / "deep" / "loop").symlink_to(folder / "data", target_is_directory=True)
    (folder / "data" / "broken.jsonl").symlink_to(folder / "nowhere")
    (folder / "data" / "itself.jsonl").symlink_to(folder / "data" / "itself.jsonl")
    write(folder / "elsewhere" / "d.jsonl")
    (folder / "data" / "link").symlink_to(folder / "elsewhere", target_is_directory=True)
    assert found(["data"])[0] == ["data/a.json", "data/b.jsonl", "data/deep/c.jsonl", "data/link/d.jsonl"]


@pytest.mark.parametrize("entry", ["data", "data/*"])
def test_what_is_no_file_is_left_out_with_a_notice(folder: Path, entry: str) -> None:
    os.mkfifo(folder / "data" / "pipe.jsonl")
    (folder / "data" / "broken.jsonl").symlink_to(folder / "nowhere")
    (folder / "data" / "itself.jsonl").symlink_to(folder / "data" / "itself.jsonl")
    (folder / "data" / "null.json").symlink_to("/dev/null")
    paths, notices = found([entry])
    assert paths == ["data/a.json", "data/b.jsonl", "data/deep/c.jsonl"]
    assert notices[1:] == (
        "train_file: left out data/broken.jsonl, data/itself.jsonl: a link to nothing",
        "train_file: left out data/null.json: a device",
        "train_file: left out data/pipe.jsonl: a named pipe",
    )


@pytest.mark.parametrize("entry", ["data", "data/*", "data/**/*.jsonl", "dat?"])
def test_runs_below_the_data_are_no_data(folder: Path, entry: str) -> None:
    data = [path for path in found([entry])[0] if path != "data/a.json"]
    Manifest.create(folder / "data" / "out" / "run", {})
    write(folder / "data" / "out" / "run" / "metrics.jsonl")
    write(folder / "data" / "out" / "run" / "checkpoint-1" / "state.jsonl")
    paths, notices = found([entry])
    assert [path for path in paths if path != "data/a.json"] == data
    assert [notice for notice in notices if "README" not in notice] == [
        "train_file: left out data/out/run: the folder of a run"
    ]
    named = found(["data/out/run"])[0]
    assert named == [f"data/out/run/{name}" for name in ("metrics.jsonl", "run.json", "checkpoint-1/state.jsonl")]
    assert found(["data/out/run/*.jsonl"])[0] == ["data/out/run/metrics.jsonl"]


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"status": "a"}'])
def test_any_other_run_json_is_data(folder: Path, content: str) -> None:
    write(folder / "data" / "deep" / "run.json", content)
    write(folder / "data" / "deep" / "CACHEDIR.TAG", "Signature: of another program")
    assert found(["data"])[0] == ["data/a.json", "data/b.jsonl", "data/deep/c.jsonl", "data/deep/run.json"]


def test_what_is_no_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "itself.jsonl").symlink_to(folder / "itself.jsonl")
    once = "which cannot be read twice; write its content to a file"
    cases = {
        "pipe.jsonl": f"pipe.jsonl is a named pipe, {once}",
        "/dev/null": f"/dev/null is a device, {once}",
        "itself.jsonl": f"itself.jsonl does not exist (looked for {folder}/itself.jsonl); "
        "correct the path, which is relative to the working directory",
    }
    for entry, message in cases.items():
        with pytest.raises(UserError) as caught:
            found([entry])
        assert str(caught.value) == f"train_file: {message}"


@pytest.fixture()
def without_rights() -> Iterator[Path]:
    """A folder of somebody who is not root, whom nothing would stop."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name, "data", "x.jsonl"))
        write(Path(name, "data", "locked", "y.jsonl"))
        yield Path(name)
        for path in Path(name).rglob("*"):
            path.chmod(0o755)
    if is_root:
        os.seteuid(0)


@pytest.mark.parametrize(("mode", "entry"), [(0, ""), (0o444, ""), (0, "locked/y.jsonl"), (0, "locked/*.jsonl")])
def test_a_folder_that_may_not_be_read(without_rights: Path, mode: int, entry: str) -> None:
    data = without_rights / "data"
    (data / "locked").chmod(mode)
    with pytest.raises(UserError) as caught:
        found([str(data / entry)])
    place = data / entry if entry else data / "locked" / ("y.jsonl" if mode else "")
    assert str(caught.value) == f"train_file: {place} cannot be read (Permission denied); check its permissions"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb.jsonl", "a\\nb.jsonl"),
        ("a:1: b.jsonl", "a:1: b.jsonl"),
        ("\udcff é\u3000.jsonl", "\\udcff é\u3000.jsonl"),
    ],
)
def test_names_are_one_line_of_text(folder: Path, name: str, shown: str) -> None:
    write(folder / "odd" / name, "5\n")
    (file,) = find_files(["odd"], key="train_file", row_kind="messages").files
    assert [str(record) for record in read_records(file)] == [f"odd/{shown}:1: not an object: a number"]
    with pytest.raises(UserError) as caught:
        found([f"{name}x"])
    assert str(caught.value).startswith(f"train_file: {shown}x does not exist (looked for {folder}/{shown}x); ")


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
    for name in ("table.doc", "a.tar.gz", "a.ZIP", "a.jsonl.bz2", "a.json.xz", "a.xlsx"):
        write(folder / name)
    not_read = "is compressed in a way that is not read (.gz and .zst are); decompress it"
    kinds = ".jsonl, .json, .csv, .tsv, .parquet, .arrow"
    cases = {
        "nowhere.jsonl": f"nowhere.jsonl does not exist (looked for {folder}/nowhere.jsonl); "
        "correct the path, which is relative to the working directory",
        "no*.jsonl": f"no*.jsonl matches no file (looked for {folder}/no*.jsonl); correct the pattern",
        "empty": f"empty holds no data file for this task (looked in {folder}/empty); "
        f"put {kinds} files there or name another place",
        "table.doc": f"table.doc is of a kind that is not read; supported are {kinds}",
        "a.tar.gz": "a.tar.gz is an archive; unpack it and name its folder",
        "a.ZIP": "a.ZIP is an archive; unpack it and name its folder",
        "a.jsonl.bz2": f"a.jsonl.bz2 {not_read}",
        "a.json.xz": f"a.json.xz {not_read}",
        "a.xlsx": "a.xlsx is a spreadsheet; save it as .csv",
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
    assert read(write(tmp_path / "y.py", "def f(): ...")) == [(1, {"text": "def f(): ..."})]


def test_a_long_text_is_read_in_parts(tmp_path: Path) -> None:
    line = "0123456789" * 10 + "\n"
    paragraph = line * 100 + "\r\n"
    content = "\ufeff" + paragraph * 1700 + "x" * 3 * 10**6 + "\nend\n" + line * 20_000 + "\nlast"
    path = write(tmp_path / "x.txt", content)
    assert path.stat().st_size > MAX_RECORD_BYTES
    records = list(read_records(DataFile(path, "x")))
    texts = [record.value["text"] for record in records if isinstance(record, Record)]
    assert "".join(texts) == content.removeprefix("\ufeff")
    lines = [record.source.line for record in records]
    assert lines == [1 + content.count("\n", 0, len("".join(texts[:index])) + 1) for index in range(len(texts))]
    assert all(len(text) <= PART_BYTES or text.count("\n") == 1 for text in texts)
    assert sum(len(text) > PART_BYTES for text in texts) == 1
    assert all(text.endswith("\n\r\n") for text in texts[:16])
    assert min(map(len, texts[:-1])) > 400_000
    write(tmp_path / "y.txt.gz", gzip.compress(content.encode(), 1))
    assert [record.value["text"] for record in read_records(DataFile(tmp_path / "y.txt.gz", "x"))] == texts


def test_a_text_of_the_longest_size_is_one_document(tmp_path: Path) -> None:
    content = "a\n" * (MAX_RECORD_BYTES // 2)
    assert read(write(tmp_path / "x.txt", content)) == [(1, {"text": content})]
    assert len(read(write(tmp_path / "x.txt", content + "a"))) == 17


def test_bad_text_spoils_one_part(tmp_path: Path) -> None:
    line = b"x" * 1023 + b"\n"
    content = line * 1500 + b"a\xff\n" + line * 16_000 + b"y" * (MAX_RECORD_BYTES + 1) + b"\n" + line * 3
    records = read(write(tmp_path / "x.txt", content))
    assert [record for record in records if isinstance(record[1], str)] == [
        (1501, "invalid UTF-8: byte 1,536,002 of the file"),
        (17_502, "over-long record: 16,777,218 bytes, at most 16,777,216 are read"),
    ]
    assert records[-1] == (17_503, {"text": (line * 3).decode()})


def test_an_over_long_line_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(100):
            file.write(b"x" * 10**6)
        file.write(b'"}\n{"a": 2}\n')
    reason = "over-long record: 100,000,010 bytes, at most 16,777,216 are read"
    assert read(path) == [(1, {"a": 1}), (2, reason), (3, {"a": 2})]
    text = "x" * MAX_RECORD_BYTES
    assert read(write(tmp_path / "x.json", f'[{{"a": 1}},\n{{"a": "{text}"}}]')) == [
        (1, {"a": 1}),
        (2, "over-long record: 16,777,225 characters, at most 16,777,216 are read"),
    ]


READING = """
import resource, sys
from pathlib import Path
from component.config.errors import DataError
from component.data.rows import Failure
from component.data.sources import DataFile, read_records

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

path = Path(sys.argv[1])
if path.suffix in (".arrow", ".parquet"):
    next(read_records(DataFile(path, "x")))  # what the libraries take themselves
before, num_records = peak(), 0
try:
    for record in read_records(DataFile(path, "x")):
        num_records += 1
        if isinstance(record, Failure):
            print(record)
except DataError as error:
    print(error)
print(num_records)
print(peak() - before)
"""


def read_measured(path: Path, repository: Path) -> tuple[list[str], int, int]:
    """Failures, number of records, and by how many MiB the memory of a process grows that reads a file."""
    command = [sys.executable, "-c", READING, str(path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    *failures, num_records, growth = done.stdout.splitlines()
    return failures, int(num_records), int(growth)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.jsonl", "1: over-long record: 268,435,456 bytes, at most 16,777,216 are read"),
        ("x.txt", "1: over-long record: 268,435,456 bytes, at most 16,777,216 are read"),
        ("x.csv", "1: over-long record: 268,435,456 characters, at most 16,777,216 are read; "
         "correct the line that names the columns"),
        ("x.json", "1: bad JSON: invalid control character, column 8; "
         "no row after it can be read: correct it, or use .jsonl, one object a line"),
    ],
)  # fmt: skip
def test_a_line_that_is_longer_than_the_memory(tmp_path: Path, repository: Path, name: str, reason: str) -> None:
    write(tmp_path / name, '{"a": "')
    os.truncate(tmp_path / name, 2**28)
    failures, _, growth = read_measured(tmp_path / name, repository)
    assert failures == [f"x:{reason}"]
    assert growth < 100


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "\ufeff{}".encode("utf-16-le"), "is text in UTF-16; convert it to UTF-8, "
         "for example with iconv -f UTF-16 -t UTF-8"),
        ("x.csv", "\ufeffa\n1".encode("utf-16-be"), "is text in UTF-16; convert it to UTF-8, "
         "for example with iconv -f UTF-16 -t UTF-8"),
        ("x.txt.gz", gzip.compress("\ufeffa".encode("utf-16-le"), mtime=0), "is text in UTF-16; convert it to UTF-8, "
         "for example with iconv -f UTF-16 -t UTF-8"),
        ("x.jsonl", gzip.compress(b"{}", mtime=0), "is compressed with gzip; add .gz to its name"),
        ("x.jsonl.gz", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0),
         "is compressed with gzip; add .gz to its name"),
        ("x.json", b"PK\x03\x04...", "is a zip archive or a spreadsheet; unpack it, or save the sheet as .csv"),
        ("x.csv", b"PAR1\x15\x04", "is a parquet file; give it the suffix .parquet"),
        ("x.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS that stands "
         "for the data; run git lfs pull"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS that "
         "stands for the data; run git lfs pull"),
        ("x.jsonl", b"\n<!DOCTYPE html><html>", "is a web page; download the file itself, not the page about it"),
    ],
)  # fmt: skip
def test_files_under_a_wrong_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_page_is_a_document(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.html", "<!DOCTYPE html>")) == [(1, {"text": "<!DOCTYPE html>"})]


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": b"", "a.jsonl.gz": b"", "b.jsonl.gz": gzip.compress(b""), "a.json": b"\n", "a.csv": b"a,b\n",
        "b.csv": b"\xef\xbb\xbf", "c.jsonl": b"\n \r\n",
    }.items():  # fmt: skip
        assert read(write(tmp_path / name, content)) == []
    pyarrow.parquet.write_table(pyarrow.table({"a": []}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == []


def test_line_ends(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.jsonl", '{"a": 1}\r\n{"a": 2}\n\r\n{"a": 4}')) == [
        (1, {"a": 1}),
        (2, {"a": 2}),
        (4, {"a": 4}),
    ]
    assert read(write(tmp_path / "x.csv", "a,b\r1,2\r\n3,4\n5,6")) == [
        (2, {"a": "1", "b": "2"}),
        (3, {"a": "3", "b": "4"}),
        (4, {"a": "5", "b": "6"}),
    ]
    assert read(write(tmp_path / "y.jsonl", '{"a": 1}\r{"a": 2}\r')) == [
        (1, "bad JSON: more text after the object, column 10; lines must end with \\n, not with \\r alone")
    ]


def test_over_deep_nesting_is_one_bad_row(tmp_path: Path) -> None:
    deep = "[" * 10**5 + "]" * 10**5
    assert read(write(tmp_path / "x.jsonl", f'{{"a": {deep}}}\n{{"a": 2}}')) == [
        (1, "bad JSON: nested too deeply, column 1"),
        (2, {"a": 2}),
    ]


@pytest.mark.parametrize(("suffix", "cut"), [("csv", ","), ("tsv", "\t")])
def test_tables_of_text(tmp_path: Path, suffix: str, cut: str) -> None:
    lines = ['\ufeffa,"b"', "", '1,"two', 'lines, ""quoted"""', "3", "4,", '"5"x,6', "7,8,9", "é,ü"]
    content = "\r\n".join(
        line.replace(",", cut) if number != 3 else 'lines, ""quoted"""' for number, line in enumerate(lines)
    )
    bad_quote = f"bad table: '{cut}' expected after '\"'"
    assert read(write(tmp_path / f"x.{suffix}", content)) == [
        (3, {"a": "1", "b": 'two\r\nlines, "quoted"'}),
        (5, "bad table: 1 cells, the table has 2 columns"),
        (6, {"a": "4", "b": ""}),
        (7, bad_quote),
        (8, "bad table: 3 cells, the table has 2 columns"),
        (9, {"a": "é", "b": "ü"}),
    ]


def test_broken_tables_of_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", b"a\n\xff\nb")) == [(2, "invalid UTF-8"), (3, {"a": "b"})]
    assert read(write(tmp_path / "b.csv", "")) == []
    for content, message in {
        "a,a\n1,2": "1: bad table: two columns are named 'a'",
        "a,\n1,2": "1: bad table: a column has no name",
        'a\nb\n"c\nd\n': "3: bad table: a quote is never closed; no row after it can be told apart: close it",
    }.items():
        path = write(tmp_path / "c.csv", content)
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}:{message}")


def test_tables_with_zero_bytes_and_over_long_lines(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "a,b\n1\0,2\n")) == [(2, {"a": "1\0", "b": "2"})]
    long = "x" * (MAX_RECORD_BYTES + 5)
    assert read(write(tmp_path / "b.csv", f"a,b\n1,{long}\n3,4\n")) == [
        (2, "over-long record: 16,777,224 characters, at most 16,777,216 are read"),
        (3, {"a": "3", "b": "4"}),
    ]
    lines = "x,y\n" * (MAX_RECORD_BYTES // 4)
    read_back = read(write(tmp_path / "c.csv", f'a,b\n1,"\n{lines}z,z\n'))
    assert read_back[0] == (2, "bad table: a cell of over 16,777,216 characters, or a quote that is never closed")
    assert read_back[-1] == (MAX_RECORD_BYTES // 4 + 3, {"a": "z", "b": "z"})


def test_two_tables_are_read_at_the_same_time(tmp_path: Path) -> None:
    cell = "x" * 200_000
    paths = [write(tmp_path / name, f"a\n{cell}\n{cell}\n") for name in ("a.csv", "b.csv")]
    first, second = (read_records(DataFile(path, "f")) for path in paths)
    next(first), next(second)
    assert len(list(first)) == 1
    assert [record.value for record in second] == [{"a": cell}]


ROWS = [{"a": "x", "b": [{"c": 1}]}, {"a": None, "b": [{"d": "y"}]}]
READ = [(1, {"a": "x", "b": [{"c": 1}]}), (2, {"a": None, "b": [{"d": "y"}]})]


def test_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == READ
    packed = write(tmp_path / "y.parquet.gz", gzip.compress((tmp_path / "x.parquet").read_bytes()))
    assert read(packed) == READ
    with pytest.raises(DataError, match="z.parquet: is no parquet file, or a damaged one"):
        read(write(tmp_path / "z.parquet", "abc"))


def test_arrow(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(tmp_path / "stream.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as to:
        to.write_table(table)
    with pyarrow.OSFile(str(tmp_path / "file.arrow"), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as to:
        to.write_table(table)
    assert read(tmp_path / "stream.arrow") == READ
    assert read(tmp_path / "file.arrow") == READ
    for name in ("stream", "file"):
        packed = write(tmp_path / f"{name}.2.arrow.gz", gzip.compress((tmp_path / f"{name}.arrow").read_bytes()))
        assert read(packed) == READ
    with pytest.raises(DataError, match="z.arrow: is no arrow file, or a damaged one"):
        read(write(tmp_path / "z.arrow", "abc"))


def test_text_that_is_no_utf8_spoils_one_row_of_a_table(tmp_path: Path) -> None:
    text = pyarrow.array([b"a", b"\xff", b"b"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"a": text}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [(1, {"a": "a"}), (2, "invalid UTF-8"), (3, {"a": "b"})]


def test_long_rows_of_a_table(tmp_path: Path) -> None:
    texts = ["a", "b" * (MAX_RECORD_BYTES + 1), "c" * 10**6, "d"]
    table = pyarrow.table({"a": texts})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as to:
        to.write_table(table)
    for name in ("x.parquet", "x.arrow"):
        records = read(tmp_path / name)
        number, reason = records.pop(1)
        assert number == 2 and reason.startswith("over-long record: 16,777,2")
        assert records == [(1, {"a": "a"}), (3, {"a": texts[2]}), (4, {"a": "d"})]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.parquet")
    assert str(caught.value) == (
        f"{tmp_path}/x.parquet: bad table: two columns are named 'a'; give each column a name of its own"
    )


def test_an_arrow_file_is_not_held_in_memory(tmp_path: Path, repository: Path) -> None:
    """120 MB of rows, in batches as the datasets library writes them and as one row group."""
    batch = pyarrow.table({"a": ["x" * 1000] * 1000})
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), batch.schema) as to:
        for _ in range(120):
            to.write_table(batch)
    numbers = pyarrow.array([f"{number:01000}" for number in range(120_000)])
    pyarrow.parquet.write_table(
        pyarrow.table({"a": numbers}), tmp_path / "x.parquet", row_group_size=10**6, compression="none"
    )
    for name in ("x.arrow", "x.parquet"):
        failures, num_records, growth = read_measured(tmp_path / name, repository)
        assert (failures, num_records) == ([], 120_000)
        assert growth < 60, name


def test_text_that_is_no_utf8_in_a_nested_column_spoils_one_row(tmp_path: Path) -> None:
    texts = pyarrow.array([b"a", b"\xff", b"b", b"c"]).view(pyarrow.string())
    turns = pyarrow.StructArray.from_arrays([texts], names=["content"])
    table = pyarrow.table({"messages": pyarrow.ListArray.from_arrays([0, 2, 3, 4], turns)})
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as to:
        to.write_table(table)
    good = [(number, {"messages": [{"content": text}]}) for number, text in ((2, "b"), (3, "c"))]
    assert read(tmp_path / "x.arrow") == [(1, "invalid UTF-8"), *good]


DAMAGE = """
import random, sys
from pathlib import Path
from component.config.errors import DataError
from component.data.sources import DataFile, read_records
path = Path(sys.argv[1])
content, generator, num_errors = path.read_bytes(), random.Random(0), 0
for _ in range(400):
    damaged = bytearray(content)
    for _ in range(generator.choice((1, 3))):
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
    path.write_bytes(damaged[: generator.choice((None, None, generator.randrange(len(damaged))))])
    try:
        list(read_records(DataFile(path, "x")))
    except DataError as error:
        num_errors += str(error).startswith("x: ")
print(num_errors)
"""


@pytest.mark.parametrize("name", ["x.parquet", "stream.arrow", "file.arrow"])
def test_no_damage_of_a_table_ends_the_process(tmp_path: Path, repository: Path, name: str) -> None:
    rows = [
        {"a": [{"b": "é" * number, "c": None}], "d": number, "e": "x" if number % 3 else None} for number in range(20)
    ]
    table = pyarrow.Table.from_pylist(rows)
    if name == "x.parquet":
        pyarrow.parquet.write_table(table, tmp_path / name)
    else:
        new = pyarrow.ipc.new_stream if name == "stream.arrow" else pyarrow.ipc.new_file
        with new(str(tmp_path / name), table.schema) as to:
            to.write_table(table)
    command = [sys.executable, "-c", DAMAGE, str(tmp_path / name)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 200 < int(done.stdout) < 400


def test_an_arrow_file_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    table = pyarrow.table({"a": ["x" * 1000] * 1000})
    with pyarrow.ipc.new_stream(str(path), table.schema) as to:
        for _ in range(20):
            to.write_table(table)
    records = read_records(DataFile(path, "x"))
    next(records)
    os.truncate(path, 10**6 * 3)
    with pytest.raises(DataError, match="^x: (is no arrow file, or a damaged one|changed while it was read)"):
        list(records)


def test_a_saved_dataset_is_its_arrow_files(folder: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([{"a": 1}, {"a": 2}]).save_to_disk(folder / "saved")
    assert found(["saved"])[0] == ["saved/data-00000-of-00001.arrow"]
    assert read(folder / "saved/data-00000-of-00001.arrow") == [(1, {"a": 1}), (2, {"a": 2})]


def test_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a": 1}\n{"a": 2}\n')
    assert read(write(tmp_path / "x.jsonl.gz", packed)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert read(write(tmp_path / "x.JSON.GZ", gzip.compress(b'[{"a": 1}]'))) == [(1, {"a": 1})]
    assert read(write(tmp_path / "x.csv.gz", gzip.compress(b"a\n1"))) == [(2, {"a": "1"})]
    assert read(write(tmp_path / "x.txt.gz", gzip.compress(b"abc"))) == [(1, {"text": "abc"})]
    for content in (packed[:-9], b"abc"):
        with pytest.raises(DataError, match="y.jsonl.gz: cannot be decompressed to its end"):
            read(write(tmp_path / "y.jsonl.gz", content))


def test_zstd(tmp_path: Path) -> None:
    if importlib.util.find_spec("zstandard") is None:
        with pytest.raises(MachineError, match="x.jsonl.zst: the package zstandard is not installed; pip install"):
            read(write(tmp_path / "x.jsonl.zst", "abc"))
        return
    import zstandard

    packed = zstandard.compress(b'{"a": 1}\n{"a": 2}\n')
    assert read(write(tmp_path / "x.jsonl.zst", packed)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert read(write(tmp_path / "x.jsonl.zst", packed * 2))[3] == (4, {"a": 2})
    for content in (packed[:-5], packed + packed[:-5], b"abc"):
        with pytest.raises(DataError, match="y.jsonl.zst: cannot be decompressed to its end"):
            read(write(tmp_path / "y.jsonl.zst", content))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"a": 1}\n{"a": 2}\n')
    (file,) = find_files([str(path)], key="train_file", row_kind="messages").files
    records = read_records(file)
    next(records)
    with path.open("a") as end:
        end.write('{"a": 3}\n')
    for changed in (records, read_records(file)):  # while it was read, and between finding and reading it
        with pytest.raises(DataError) as caught:
            list(changed)
        assert str(caught.value) == f"{path}: changed while it was read; start again when nothing writes to it"


def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"a": 1}\n{"a": 2}\n')
    (file,) = find_files([str(path)], key="train_file", row_kind="messages").files
    other = write(tmp_path / "other.jsonl", '{"a": 1}\n{"a": 3}\n')
    os.utime(other, ns=(0, file.state[2] if file.state else 0))
    records = read_records(file)
    next(records)
    other.rename(path)
    with pytest.raises(DataError, match="changed while it was read"):
        list(records)


def test_an_unreadable_file(without_rights: Path) -> None:
    path = without_rights / "data" / "x.jsonl"
    path.chmod(0)
    with pytest.raises(UserError, match="x.jsonl cannot be read"):
        hash_files([path], key="train_file")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file that can be changed, with an ETag."""

    content = b""
    requests: list[str] = []

    def do_GET(self) -> None:
        tag = f'"{hashlib.sha256(self.content).hexdigest()}"'
        is_known = self.headers.get("If-None-Match") == tag
        is_there = self.path == "/data/x.jsonl"
        code = 404 if not is_there else 304 if is_known else 200
        Server.requests.append(f"{code} {self.path}")
        self.send_response(code)
        self.send_header("ETag", tag)
        self.end_headers()
        if code == 200:
            self.wfile.write(self.content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture()
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the server listens."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Server.requests = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_web_address(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{address}/data/x.jsonl"
    for content in (b'{"a": 1}\n', b'{"a": 1}\n', b'{"a": 2}\n'):
        Server.content = content
        (file,) = find_files([url], key="train_file", row_kind="messages").files
        assert file.name == url
        assert file.path == tmp_path / "cache/lampyris/downloads" / hashlib.sha256(content).hexdigest() / "x.jsonl"
        assert file.path.read_bytes() == content
    assert Server.requests == ["200 /data/x.jsonl", "304 /data/x.jsonl", "200 /data/x.jsonl"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = find_files([url], key="train_file", row_kind="messages")
    assert files.files == (file,)
    assert files.notices == (
        f"train_file: {url} cannot be downloaded (HF_HUB_OFFLINE is set); the copy of an earlier download is used",
    )
    file.path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be downloaded"):
        find_files([url], key="train_file", row_kind="messages")


def test_web_addresses_that_cannot_be_used(address: str) -> None:
    fix = "correct the address, or download the file yourself and name its path"
    cases = {
        f"{address}/no.jsonl": f"{address}/no.jsonl cannot be downloaded (HTTP 404 Not Found); {fix}",
        "http://127.0.0.1:9/x.json": "http://127.0.0.1:9/x.json cannot be downloaded "
        f"([Errno 111] Connection refused); {fix}",
        "https://me:secret@example.org/x.json": "a web address must not hold a user or password; "
        "download the file yourself",
        "https://example.org/x.doc": "x.doc is of a kind that is not read; "
        "supported are .jsonl, .json, .csv, .tsv, .parquet, .arrow",
    }
    for entry, message in cases.items():
        with pytest.raises(UserError) as caught:
            found([entry])
        assert str(caught.value) == f"train_file: {message}"


HUB = """
import json, sys
from component.config.errors import UserError
from component.data.sources import find_files, read_records
for entry in sys.argv[1:]:
    try:
        for file in find_files([entry], key="train_file", row_kind="messages").files:
            print(json.dumps([file.name, [record.value for record in read_records(file)]]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def test_datasets_of_the_hub(tmp_path: Path, repository: Path) -> None:
    """The datasets library takes a folder of that name for the dataset, so that no hub is needed."""
    write(tmp_path / "owner/name/train.jsonl", '{"a": 1}\n{"a": 2}\n')
    write(tmp_path / "owner/name/test.jsonl", '{"a": 3}\n')
    entries = [
        "hub:owner/name",
        "hub:owner/name?split=test",
        "hub:owner/name?split=dev",
        "hub:owner/other",
        "hub:a/b/c",
        "hub:owner/name?splt=x",
        "hub:owner/name?split=train[:1]",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", HUB, *entries]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert seen[:2] == [["hub:owner/name", [{"a": 1}, {"a": 2}]], ["hub:owner/name?split=test", [{"a": 3}]]]
    form = "write hub:owner/name?config=...&split=...&revision=..., each of the three if needed"
    assert seen[2].startswith("train_file: hub:owner/name?split=dev cannot be loaded (")
    assert seen[3].startswith("train_file: hub:owner/other cannot be loaded (")
    assert seen[4:] == [
        f"train_file: hub:a/b/c is no dataset of the hub; {form}",
        f"train_file: hub:owner/name?splt=x: there is no splt=x; {form}",
        "train_file: hub:owner/name?split=train[:1]: a split is taken whole; use max_samples for a part of it",
    ]
    assert all("\n" not in message for message in seen[2:])

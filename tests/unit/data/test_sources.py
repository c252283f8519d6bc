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
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from component.config.errors import DataError, MachineError, UserError
from component.data.records import MAX_RECORD_BYTES
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
    write(folder / "table.xls")
    kinds = ".jsonl, .json, .csv, .tsv, .parquet, .arrow"
    cases = {
        "nowhere.jsonl": f"nowhere.jsonl does not exist (looked for {folder}/nowhere.jsonl); "
        "correct the path, which is relative to the working directory",
        "no*.jsonl": f"no*.jsonl matches no file (looked for {folder}/no*.jsonl); correct the pattern",
        "empty": f"empty holds no data file for this task (looked in {folder}/empty); "
        f"put {kinds} files there or name another place",
        "table.xls": f"table.xls is of a kind that is not read; supported are {kinds}",
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl")
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
        "https://example.org/x.xls": "x.xls is of a kind that is not read; "
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

"""From files of every kind to rows: tables that hold conversations, and what the reader says of a file's rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.documents import PART_BYTES
from component.data.prepare import prepare_data
from component.data.reading import FileRows, read_rows
from component.data.records import MAX_RECORD_BYTES
from component.data.rows import EncodedRow, Failure, Prepared, Row, RowError
from component.data.sources import DataFile

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
        {"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}], "system": None},
    ],
    "openai": [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": None},
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "tool_calls": [{"id": "1", **CALL}]},
                {"role": "tool", "content": "1", "tool_call_id": "1"},
                {"role": "assistant", "content": "b"},
            ],
            "tools": [TOOL],
        },
    ],
    "firefly": [{"conversation": [{"human": "a", "assistant": "b"}], "system": "s"}],
    "preference": [
        {
            "prompt": [{"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "c"}],
        }
    ],
    "prompt_completion": [
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
    ],
    "prompt_only": [{"prompt": [{"role": "user", "content": "a"}]}],
}
ROW_KINDS = {"preference": "preference", "prompt_only": "prompt"}


def read(path: Path, row_kind: str = "messages", skip: int = 0, **options: Any) -> FileRows:
    return read_rows(DataFile(path, "f"), DataSection(train_file=[str(path)], **options), row_kind, skip=skip)


def contents(path: Path, name: str) -> list[Any]:
    """What the rows say, whatever line they stand on."""
    found = read(path, ROW_KINDS.get(name, "messages"))
    assert found.data_format == name
    rows = list(found.rows)
    assert all(isinstance(row, Row) for row in rows), rows
    return [(row.messages, row.chosen, row.rejected, row.tools) for row in rows if isinstance(row, Row)]


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def as_text(record: dict[str, Any]) -> dict[str, str]:
    """A record as a table of texts holds it."""
    return {
        key: "" if value is None else value if isinstance(value, str) else json.dumps(value)
        for key, value in record.items()
    }


@pytest.mark.parametrize("name", RECORDS)
def test_a_table_with_types_gives_the_rows_of_json_lines(tmp_path: Path, name: str) -> None:
    """Lists of structs; keys that a struct has in another row only are null in this one."""
    write_json_lines(tmp_path / "x.jsonl", RECORDS[name])
    expected = contents(tmp_path / "x.jsonl", name)
    table = pyarrow.Table.from_pylist(RECORDS[name])
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as to:
        to.write_table(table)
    assert contents(tmp_path / "x.parquet", name) == contents(tmp_path / "x.arrow", name) == expected


@pytest.mark.parametrize("name", RECORDS)
def test_a_table_of_json_texts_gives_the_rows_of_json_lines(tmp_path: Path, name: str) -> None:
    write_json_lines(tmp_path / "x.jsonl", RECORDS[name])
    expected = contents(tmp_path / "x.jsonl", name)
    texts = [as_text(record) for record in RECORDS[name]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(texts), tmp_path / "x.parquet")
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(texts[0]))
        writer.writeheader()
        writer.writerows(texts)
    assert contents(tmp_path / "x.parquet", name) == contents(tmp_path / "x.csv", name) == expected


def test_messages_as_text_are_noted_and_other_json_is_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    records = [{"prompt": json.dumps(turns), "completion": "b"}, {"prompt": "[1, 2", "completion": "[{}]"}]
    write_json_lines(tmp_path / "x.jsonl", records)
    row, text = read(tmp_path / "x.jsonl").rows
    assert isinstance(row, Row) and isinstance(text, Row)
    assert [message.content for message in row.messages] == ["a", "b"]
    assert row.notices == ("prompt is the JSON text of messages, and is read as messages",)
    assert [segment.text for segment in text.segments] == ["[1, 2", "[{}]"]


def test_a_text_that_is_no_list_of_turns(tmp_path: Path) -> None:
    for written, reason in {
        "[{'from': 'human', 'value': 'a'}]": "bad JSON in conversations",
        "hello": "conversations is not a list: a string",
    }.items():
        pyarrow.parquet.write_table(pyarrow.table({"conversations": [written]}), tmp_path / "x.parquet")
        (failure,) = read(tmp_path / "x.parquet", data_format="sharegpt").rows
        assert isinstance(failure, Failure) and failure.reason.startswith(reason)


def test_a_format_is_found_behind_many_bad_rows(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "x.jsonl", [5] * 1000 + RECORDS["sharegpt"])  # type: ignore[list-item]
    found = read(tmp_path / "x.jsonl")
    assert found.data_format == "sharegpt"
    rows = list(found.rows)
    assert len(rows) == 1002
    assert [isinstance(row, Row) for row in rows[999:]] == [False, True, True]
    skipped = list(read(tmp_path / "x.jsonl", skip=1001).rows)
    assert skipped == rows[1001:]


def test_no_row_can_be_read(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "x.jsonl", [5] * 50)  # type: ignore[list-item]
    found = read(tmp_path / "x.jsonl")
    assert found.data_format is None
    assert len(list(found.rows)) == 50


def test_the_parts_of_a_long_text_say_so(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n" * (MAX_RECORD_BYTES // 2 + 1))
    rows = list(read(tmp_path / "x.txt", "text").rows)
    notices = {row.notices for row in rows if isinstance(row, Row)}
    assert notices == {
        ("part of a text file over 16 MiB, which is divided between lines into documents of up to 1 MiB",)
    }
    assert [row.source.line for row in rows] == [1 + index * PART_BYTES // 2 for index in range(17)]
    (tmp_path / "y.txt").write_text("a\n")
    assert list(read(tmp_path / "y.txt", "text").rows)[0].notices == ()


def test_records_that_no_format_knows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="^f: data_format: no known format, the rows have the keys a, b; use one of "):
        read(tmp_path / "x.csv")


class Meddler:
    """Encodes texts as the codes of their characters, and writes to their file meanwhile if it is told to."""

    row_kind = "text"
    keep_text = False

    def __init__(self, path: Path, replacement: str | None) -> None:
        self.path, self.replacement = path, replacement

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        if self.replacement is not None:
            with self.path.open("r+") as file:  # never shorter, so that the reader goes on
                file.write(self.replacement)
        ids = [tuple(map(ord, row.text or "")) for row in rows]
        return [
            EncodedRow((Prepared(each, ((0, len(each)),), row.source),)) for each, row in zip(ids, rows, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("max_samples", [None, 20_000])
def test_rows_of_a_file_that_changes_are_not_kept(tmp_path: Path, max_samples: int | None) -> None:
    """Neither for the run that sees the change nor for one that finds the file as it was."""
    path = tmp_path / "x.jsonl"
    content = "".join(f'{{"text": "good {number}"}}\n' for number in range(25_000))
    path.write_text(content)
    section = DataSection(train_file=[str(path)], max_samples=max_samples, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="changed while it was read"):
        prepare_data(section, Meddler(path, content.replace("good", "evil")))
    path.write_text(content)
    samples = prepare_data(section, Meddler(path, None)).train
    texts = ["".join(map(chr, sample.input_ids)) for sample in samples]
    assert texts == [f"good {number}" for number in range(max_samples or 25_000)]

"""Records of JSON text: the line of each, and what is wrong with bad ones."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from component.config.errors import DataError
from component.data.json_records import RecordDecoder, read_json_line
from component.data.json_stream import scan_json
from component.data.records import MAX_RECORD_BYTES
from component.data.rows import RowError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4), max_size=5)


@settings(max_examples=40, deadline=None)
@given(records=RECORDS, indent=st.sampled_from([None, 0, 2, "\t"]), ascii=st.booleans())
def test_an_array_gives_every_record_and_its_line(records: list[dict], indent: int | str | None, ascii: bool) -> None:
    texts = [json.dumps(record, indent=indent, ensure_ascii=ascii) for record in records]
    lines, line = [], 3
    for text in texts:
        lines.append(line)
        line += text.count("\n") + 2
    scanned = list(scan_json(io.StringIO("\n[\n" + ",\n\n".join(texts) + "\n]\n"), "f"))
    assert scanned == list(zip(lines, records, strict=True))


@settings(max_examples=40, deadline=None)
@given(records=RECORDS)
def test_objects_without_an_array(records: list[dict]) -> None:
    texts = [json.dumps(record, indent=1) for record in records]
    assert [value for _, value in scan_json(io.StringIO("\n".join(texts)), "f")] == records


BROKEN = [
    ('[\n {"a": 1},\n {"a": ', "f:3: bad JSON: expecting value, column 8"),
    ('[{"a": 1}', "f:1: bad JSON: the array goes on without a comma or ends without a ], column 10"),
    ('[{"a": 1}\n{"a": 2}]', "f:2: bad JSON: the array goes on without a comma or ends without a ], column 1"),
    ('[{"a": 1},]', "f:1: bad JSON: expecting value, column 11"),
    ('[{"a": 1},', "f:1: bad JSON: expecting value, column 11"),
    ("[", "f:1: bad JSON: expecting value, column 2"),
    ('[{"a": "b}]', "f:1: bad JSON: unterminated string, column 8"),
    ("[" + "[" * 100_000, "f:1: bad JSON: nested too deeply, column 2"),
    ('\n\n[{"a": 1},\n  {"a": ' + "9" * 5000 + "}]", "f:4: bad JSON: a number with too many digits, column 3"),
    ('{"a": 1}\n{"a": tru}', "f:2: bad JSON: expecting value, column 7"),
    ('{"a": "\\x"}', "f:1: bad JSON: invalid \\escape, column 8"),
    ('{"é": "a\nb"}', "f:1: bad JSON: invalid control character, column 9"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_array_ends_the_reading(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(scan_json(io.StringIO(text), "f"))
    assert str(caught.value) == f"{message}; no row after it can be read: correct it, or use .jsonl, one object a line"


def test_text_after_an_array() -> None:
    with pytest.raises(DataError) as caught:
        list(scan_json(io.StringIO("[]\n\nx"), "f"))
    assert str(caught.value) == "f:3: bad JSON: more text after the array; remove what follows the ]"


BAD_RECORDS = '[{"a": 1, "a": 2},\n"text", [1], null,\n{"b": "\\ud83d"}, {"b": "\udcff"}, {"b": "\\ud83d\\ude00"}]'


def scan(text: str, num_characters: int = 2**20, num_bytes: int = 2**13) -> list[Any]:
    """Line and value or reason of each record, and the message of the error that ends them, if there is one."""
    stream = io.TextIOWrapper(
        io.BytesIO(text.encode(errors="surrogateescape")), "utf-8-sig", errors="surrogateescape", newline=""
    )
    stream._CHUNK_SIZE = num_bytes
    scanned: list[Any] = []
    try:
        for line, value in scan_json(stream, "f", num_characters=num_characters):
            scanned.append((line, repr(value)))
    except DataError as error:
        scanned.append(str(error))
    return scanned


def test_bad_records_of_an_array_spoil_no_other() -> None:
    values = scan_json(io.StringIO(BAD_RECORDS), "f")
    assert [(line, str(value) if isinstance(value, RowError) else value) for line, value in values] == [
        (1, "duplicate key: 'a'"),
        (2, "not an object: a string"),
        (2, "not an object: a list"),
        (2, "not an object: null"),
        (3, "lone surrogate: half of a \\u pair stands alone"),
        (3, "invalid UTF-8"),
        (3, {"b": "\U0001f600"}),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "b', "bad JSON: unterminated string, column 7"),
        ('{"a": 1', "bad JSON: expecting ',' delimiter, column 8"),
        ('  {"a" 1}', "bad JSON: expecting ':' delimiter, column 8"),
        ("{'a': 1}", "bad JSON: expecting property name enclosed in double quotes, column 2"),
        ('{"a": 1} {"a": 2}', "bad JSON: more text after the object, column 10"),
        ("[", "bad JSON: a line with [ alone; name the file .json if it is an array"),
        ("[" * 100_000, "bad JSON: nested too deeply, column 1"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "nested too deeply: over 64 levels"),
        ('{"a": ' + "[" * 700 + "]" * 700 + "}", "nested too deeply: over 64 levels"),
        ('{"a": ' + "9" * 5000 + "}", "bad JSON: a number with too many digits, column 1"),
        ('["a"]', "not an object: a list"),
        ('"a"', "not an object: a string"),
        ("3", "not an object: a number"),
        ("true", "not an object: a boolean"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "duplicate key: 'b'"),
        ('{"a": ["\\uDC00"]}', "lone surrogate: half of a \\u pair stands alone"),
        ('{"\\ud800": 1}', "lone surrogate: half of a \\u pair stands alone"),
    ],
)
def test_a_bad_line_gives_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read_json_line(text, RecordDecoder())
    assert str(caught.value) == reason


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 63 + "]" * 63 + "}", '{"a": [' + "[[]], " * 100 + "0]}"])
def test_what_is_nested_less_is_a_record(text: str) -> None:
    assert read_json_line(text, RecordDecoder()) == json.loads(text)


WINDOWS = st.integers(min_value=1, max_value=64)
TEXTS = [
    BAD_RECORDS,
    *(text for text, _ in BROKEN if len(text) < 10_000),
    "",
    " \n ",
    "[]",
    "[ ]\n",
    "[]\n\nx",
    "[]]",
    '{"a": 1}{"b": 2}\n\n{"c": 3} ',
    "12 3.5e+10 -Infinity true null NaN\n12",
    "1.5 1. 2",
    "[1, -2.5E-7, 1e5, -Infinity, NaN, tru]",
    '["a\\\\", "\\"]", {"a": "]}{["}]',
    '\ufeff[{"é": "\U0001f600"},\r\n{"\u4e2d": "\\ud83d\\ude00"}]',
    '["\\ud83', '["\\ud83d\\u', '{"a": "\\', '{"a":1,}', '{"a" 1}', "{'a': 1}", '{"a": 1} x', "[1 2]", "[1,2", "]",
]  # fmt: skip


def test_windows_of_any_size_give_the_same() -> None:
    for text in TEXTS:
        expected = scan(text)
        for num_characters in (1, 2, 3, 5, 7, 16, 64):
            for num_bytes in (1, 2, 3, 64):
                assert scan(text, num_characters, num_bytes) == expected, (text, num_characters, num_bytes)


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii=st.booleans(),
    is_array=st.booleans(),
    cut=st.integers(0, 60),
    num_characters=WINDOWS,
    num_bytes=WINDOWS,
)
@example([12, {"a": 1}], None, True, False, 0, 1, 1)
def test_windows_of_any_size_give_the_same_wherever_a_text_ends(
    records: list[Any], indent: int | None, ascii: bool, is_array: bool, cut: int, num_characters: int, num_bytes: int
) -> None:
    texts = [json.dumps(record, indent=indent, ensure_ascii=ascii) for record in records]
    text = f"[{', '.join(texts)}]" if is_array else "\n".join(texts)
    text = text[: len(text) - cut] if cut < len(text) else text
    assert scan(text, num_characters, num_bytes) == scan(text)


def over_long_array(filling: str) -> tuple[str, int]:
    """An array with a record that is too long between two others, and how long it is."""
    record = f'{{"a": [{{}}, "{filling}"]}}'
    return f'[{{"a": 1}},\n{record},\n{{"b": 2}}]', len(record)


@pytest.mark.parametrize("unit", ['\\"', "\\\\", "é]}", '", "'])
def test_an_over_long_record_is_passed_over(unit: str) -> None:
    filling = unit * (MAX_RECORD_BYTES // len(unit) + 2**19)
    text, length = over_long_array(filling)
    assert scan(text, 2**16) == [
        (1, "{'a': 1}"),
        (2, f"RowError('over-long record: {length:,} characters, at most 16,777,216 are read')"),
        (3, "{'b': 2}"),
    ]


def test_an_over_long_record_without_an_end() -> None:
    assert scan('[1,\n {"a": "' + "x" * (MAX_RECORD_BYTES + 9), 2**16)[1:] == [
        "f:2: bad JSON: a record of over 16,777,216 characters has no end, column 2; "
        "no row after it can be read: correct it, or use .jsonl, one object a line"
    ]


def test_a_long_array_is_not_held_in_memory() -> None:
    """The records are those of an array of 60 MB, the memory that of one window."""
    record = json.dumps(
        {"messages": [{"role": "user", "content": "é" * 500}, {"role": "assistant", "content": "a" * 500}]}
    )
    num_records = 60 * 10**6 // len(record)

    class Endless(io.RawIOBase):
        """The array, written while it is read."""

        def __init__(self) -> None:
            self.parts = itertools.chain([b"["], (f"{record},\n".encode() for _ in range(num_records)), [b"{}]"])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = next(self.parts, b"")
            buffer[: len(part)] = part
            return len(part)

    tracemalloc.start()
    try:
        stream = io.TextIOWrapper(io.BufferedReader(Endless(), 2**16), "utf-8-sig", newline="")
        lines = [line for line, _ in scan_json(stream, "f")]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines == list(range(1, num_records + 2))
    assert peak < 12 * 2**20

"""Records of JSON text: the line of each, and what is wrong with bad ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from component.config.errors import DataError
from component.data.json_records import RecordDecoder, read_json_line, scan_json
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
    scanned = list(scan_json("\n[\n" + ",\n\n".join(texts) + "\n]\n", "f"))
    assert scanned == list(zip(lines, records, strict=True))


@settings(max_examples=40, deadline=None)
@given(records=RECORDS)
def test_objects_without_an_array(records: list[dict]) -> None:
    texts = [json.dumps(record, indent=1) for record in records]
    assert [value for _, value in scan_json("\n".join(texts), "f")] == records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n {"a": 1},\n {"a": ', "f:3: bad JSON: expecting value, column 8"),
        ('[{"a": 1}', "f:1: bad JSON: the array goes on without a comma or ends without a ], column 10"),
        ('[{"a": 1}\n{"a": 2}]', "f:2: bad JSON: the array goes on without a comma or ends without a ], column 1"),
        ('[{"a": 1},]', "f:1: bad JSON: expecting value, column 11"),
        ("[", "f:1: bad JSON: expecting value, column 2"),
        ('[{"a": "b}]', "f:1: bad JSON: unterminated string, column 8"),
        ("[" + "[" * 100_000, "f:1: bad JSON: nested too deeply, column 2"),
    ],
)
def test_a_broken_array_ends_the_reading(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(scan_json(text, "f"))
    assert str(caught.value) == f"{message}; no row after it can be read: correct it, or use .jsonl, one object a line"


def test_text_after_an_array() -> None:
    with pytest.raises(DataError) as caught:
        list(scan_json("[]\n\nx", "f"))
    assert str(caught.value) == "f:3: bad JSON: more text after the array; remove what follows the ]"


def test_bad_records_of_an_array_spoil_no_other() -> None:
    text = '[{"a": 1, "a": 2},\n"text", [1], null,\n{"b": "\\ud83d"}, {"b": "\udcff"}, {"b": "\\ud83d\\ude00"}]'
    scanned = [(line, str(value) if isinstance(value, RowError) else value) for line, value in scan_json(text, "f")]
    assert scanned == [
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

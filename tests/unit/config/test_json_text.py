"""Strict JSON: values, positions, and every structural problem with its exact place."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from component.config.errors import Place
from component.config.json_text import parse_json
from component.config.nodes import MAX_DEPTH, Node, plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
DOCUMENTS = st.dictionaries(st.text(), VALUES, max_size=6)


def lines_of(text: str) -> list[str]:
    return [str(problem) for problem in parse_json(text, "f.json")[1]]


def values_of(text: str) -> object:
    node, problems = parse_json(text, "f.json")
    assert not problems and node is not None
    return plain(node)


def index_of(text: str, place: Place) -> int:
    """The index of a place, for texts whose only line break is \\n."""
    return sum(len(line) + 1 for line in text.split("\n")[: place.line - 1]) + place.column - 1


def check_positions(text: str, node: Node) -> None:
    """Each scalar is at its place, and each key at its own."""
    children = node.value.items() if isinstance(node.value, dict) else ()
    for key, child in children:
        assert child.key_place is not None
        assert json.JSONDecoder().raw_decode(text, index_of(text, child.key_place))[0] == key
    for child in node.value.values() if isinstance(node.value, dict) else node.value:
        if isinstance(child.value, dict | list):
            check_positions(text, child)
        assert json.JSONDecoder().raw_decode(text, index_of(text, child.place))[0] == plain(child)


def test_values_and_positions() -> None:
    node, problems = parse_json('{\n\t"a": 1,\n  "b": {"c": [true, 2e-4]}\n}', "f.json")
    assert problems == []
    assert node is not None
    assert plain(node) == {"a": 1, "b": {"c": [True, 0.0002]}}
    assert (node.place, node.key_place) == (Place("f.json", 1, 1), None)
    a, b = node.value["a"], node.value["b"]
    assert (a.key_place, a.place) == (Place("f.json", 2, 2), Place("f.json", 2, 7))
    c = b.value["c"]
    assert (c.key_place, c.place) == (Place("f.json", 3, 9), Place("f.json", 3, 14))
    assert c.value[1] == Node(0.0002, Place("f.json", 3, 21))


def test_windows_line_ends_and_wide_characters_count_once() -> None:
    node, _ = parse_json('{"\U0001f600": 1,\r\n"b": 2}', "f")
    assert node is not None
    assert node.value["\U0001f600"].place == Place("f", 1, 7)
    assert node.value["b"].key_place == Place("f", 2, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12345678901234567890123", 12345678901234567890123),
        ("-0", 0),
        ("8.0", 8.0),
        ("1E5", 100000.0),
        (r'"\ud83d\ude00 \u00e9 \/ \n"', "\U0001f600 \u00e9 / \n"),
        ('"// no comment # here"', "// no comment # here"),
        ("[]", []),
        ("{}", {}),
        ("null", None),
    ],
)
def test_value(text: str, value: object) -> None:
    result = values_of(f'{{"a": {text}}}')
    assert result == {"a": value}
    assert type(result["a"]) is type(value)


EMPTY = 'a train_args file is one JSON object, { "key": value, ... }'
NUMBER = "write a number such as 8, 0.5 or 2e-4, or put text in double quotes"
BOM = "the file begins with a byte-order mark; save it as UTF-8 without BOM"
COMMENT = "JSON has no comments; remove it, or use a YAML file, where # begins a comment"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [f"f.json:1:1: the file is empty; {EMPTY}"]),
        (" \n ", [f"f.json:1:1: the file is empty; {EMPTY}"]),
        ("\n[1]", [f"f.json:2:1: the top level is not an object; {EMPTY}"]),
        ('{"a": 1}}', ["f.json:1:9: } stands after the end of the object; remove what follows the last }"]),
        ('{"a" 1}', ["f.json:1:6: a: expected a colon after the key, got 1; write a colon there"]),
        ('{"a": 1\n "b": 2}', ['f.json:2:2: expected a comma or }, got "b"; put a comma between two entries']),
        ('{"a": {"b": [1 2]}}', ["f.json:1:16: a.b: expected a comma or ], got 2; put a comma between two entries"]),
        ('{"a": [{"b" 1}]}', ["f.json:1:13: a[0].b: expected a colon after the key, got 1; write a colon there"]),
        ('{"a": "x\n}', ['f.json:1:7: a: the string is not closed on its line; close it with "']),
        ('{"a": [1,', ["f.json:1:10: a: the file ends inside the [ of line 1; close it with ]"]),
        ('{"a": tru}', ["f.json:1:7: a: expected a value, got tru; put text in double quotes"]),
        (
            '{"a": 012}',
            [f"f.json:1:7: a: expected a value, got 012; {NUMBER}"],
        ),
        ('{"a":,}', ["f.json:1:6: a: expected a value, got ,; write a value there"]),
        ("{a: 1}", ['f.json:1:2: expected a key in double quotes, got a; write "a"']),
        ('{"a": 1 /* x', ["f.json:1:9: a comment that is never closed; remove it, JSON has no comments"]),
    ],
)
def test_syntax_error_ends_parsing(text: str, expected: list[str]) -> None:
    assert lines_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected", "values"),
    [
        ('{"a": [1,],\n}', ["f.json:1:9: a: trailing comma before ]; remove the comma",
                            "f.json:1:11: trailing comma before }; remove the comma"], {"a": [1]}),
        ('// x\n{"a": /* y */ 1 # z\n}', [f"f.json:1:1: {COMMENT}", f"f.json:2:7: a: {COMMENT}",
                                          f"f.json:2:17: {COMMENT}"], {"a": 1}),
        ('\ufeff{"a": 1}', [f"f.json:1:1: {BOM}"], {"a": 1}),
        ("{'a': 'x'}", ["f.json:1:2: single quotes around text; JSON takes double quotes",
                        "f.json:1:7: a: single quotes around text; JSON takes double quotes"], {"a": "x"}),
        ('{"a": 1,\n"b": {"c": 1, "c": 2},\n"a": 3, "a": 4}',
         ["f.json:2:15: b.c: duplicate key, first given in line 2; keep one of the two",
          "f.json:3:1: a: duplicate key, first given in line 1; keep one of the two",
          "f.json:3:9: a: duplicate key, first given in line 1; keep one of the two"], {"a": 1, "b": {"c": 1}}),
        ('{"a": NaN, "b": [-Infinity, 1]}',
         ["f.json:1:7: a: NaN is not a number that a config can hold; write a finite number",
          "f.json:1:18: b[0]: -Infinity is not a number that a config can hold; write a finite number"], {"b": [1]}),
        ('{"a": 1e999}', ["f.json:1:7: a: 1e999 is too large a number; write a smaller one"], {}),
        ('{"a": True}', ["f.json:1:7: a: True is not JSON; write true"], {"a": True}),
        (r'{"a": "C:\Users"}', [r"f.json:1:10: a: unknown escape \U in a string; write \\ for a backslash"],
         {"a": "C:\\Users"}),
        ('{"a": "x\ty"}', [r"f.json:1:9: a: control character U+0009 inside a string; write \t"], {"a": "x\ty"}),
        (r'{"a": "\ud83d"}', ["f.json:1:7: a: half a surrogate pair in a string; write the character itself"],
         {"a": "\ufffd"}),
    ],
)  # fmt: skip
def test_problem_lets_parsing_go_on(text: str, expected: list[str], values: object) -> None:
    node, problems = parse_json(text, "f.json")
    assert [str(problem) for problem in problems] == expected
    assert node is not None and plain(node) == values


def test_depth_limit() -> None:
    def nested(levels: int) -> str:
        return '{"a":' + "[" * levels + "]" * levels + "}"

    assert values_of(nested(MAX_DEPTH))
    too_deep = f"nested deeper than {MAX_DEPTH} levels; flatten the value"
    assert lines_of(nested(MAX_DEPTH + 1)) == [f"f.json:1:70: a: {too_deep}"]
    assert len(lines_of('{"a":' * 100_000)) == 1


def test_integer_of_thousands_of_digits() -> None:
    assert lines_of(f'{{"a": {"9" * 5000}}}') == [
        f"f.json:1:7: a: {'9' * 37}... is too large a number; write a smaller one"
    ]


@given(DOCUMENTS, st.sampled_from([None, 2, "\t"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_json_loads_and_points_at_the_text(document: dict, indent: int | str | None, is_ascii: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=is_ascii)
    node, problems = parse_json(text, "f.json")
    assert problems == [] and node is not None
    assert plain(node) == json.loads(text)
    check_positions(text, node)


@given(DOCUMENTS, st.data())
@settings(max_examples=200, deadline=None)
def test_mutations_give_problems_never_exceptions(document: dict, data: st.DataObject) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 3))
        insert = data.draw(st.text("{}[]\",:\\/*#\n'u0\ud800\ufeff\0eE-+.tN", max_size=3))
        text = text[:at] + insert + text[at + length :]
    node, problems = parse_json(text, "f.json")
    for problem in problems:
        assert "\n" not in str(problem) and str(problem).isprintable()
        assert 1 <= problem.place.line <= text.count("\n") + 1 and problem.place.column >= 1
        assert problem.what and problem.fix
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        assert problems
    assert problems or node is not None

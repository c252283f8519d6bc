"""The coercion table: what each annotation takes, what it refuses with which words, and how it is described."""

import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from component.config.coerce import CoercionError, coerce, describe_type, json_schema

Quantization = Literal["nf4", "fp4"]
Unsloth = bool | Literal["auto", "require"]
ANNOTATIONS = [
    bool, int, float, str, Any, Quantization, Unsloth, int | Literal["auto"], str | None, int | None, str | list[str],
    list[str], list[int], float | int, dict[str, Any], dict[str, float], list[Quantization] | None, Literal[4, 8],
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (True, bool, True),
        ("true", bool, True),
        (" FALSE ", bool, False),
        (8, int, 8),
        (8.0, int, 8),
        (" 8 ", int, 8),
        ("8.0", int, 8),
        ("1e3", int, 1000),
        (10**400, int, 10**400),
        ("123456789012345678901234567890", int, 123456789012345678901234567890),
        ("2e-4", float, 2e-4),
        (1, float, 1.0),
        ("1", float, 1.0),
        ("8", str, "8"),
        ("", str, ""),
        (Path("data") / "x.json", str, str(Path("data") / "x.json")),
        (None, str | None, None),
        ("null", str | None, "null"),
        ("nf4", Quantization, "nf4"),
        (" nf4 ", Quantization, "nf4"),
        ("4", Literal[4, 8], 4),
        (8.0, Literal[4, 8], 8),
        ("true", Unsloth, True),
        (False, Unsloth, False),
        ("auto", Unsloth, "auto"),
        ("auto", int | Literal["auto"], "auto"),
        ("8", int | Literal["auto"], 8),
        ("x", str | list[str], "x"),
        (["x", "y"], str | list[str], ["x", "y"]),
        (("x", "y"), list[str], ["x", "y"]),
        (["8", 2.0], list[int], [8, 2]),
        (8, float | int, 8),
        (8.5, float | int, 8.5),
        ("8", float | int, 8),
        ({"a": [1, None]}, dict[str, Any], {"a": [1, None]}),
        ({"a": "2"}, dict[str, float], {"a": 2.0}),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_taken(value: object, annotation: object, expected: object) -> None:
    result = coerce(value, annotation)
    assert (type(result), result) == (type(expected), expected)


NUMBER = "write a number such as 8"


@pytest.mark.parametrize(
    ("value", "annotation", "what", "fix"),
    [
        (1, bool, "expected true or false, got 1", "write true"),
        (0, bool, "expected true or false, got 0", "write false"),
        ("no", bool, 'expected true or false, got "no"', "write false"),
        ("maybe", bool, 'expected true or false, got "maybe"', "write true or false"),
        (None, bool, "expected true or false, got null", "write true or false"),
        (
            "auto",
            bool,
            'expected true or false, got "auto"',
            "write true or false, or remove the key to take the default",
        ),
        ("eight", int, 'expected an integer, got "eight"', NUMBER),
        ("", int, 'expected an integer, got ""', NUMBER),
        ("012", int, 'expected an integer, got "012"', NUMBER),
        (True, int, "expected an integer, got true", NUMBER),
        (8.5, int, "expected an integer, got 8.5", "write a whole number such as 8"),
        (math.inf, int, "expected an integer, got Infinity", "write a whole number such as 8"),
        ([8], int, "expected an integer, got [8]", NUMBER),
        (False, float, "expected a number, got false", "write a finite number such as 0.1"),
        (math.nan, float, "expected a number, got NaN", "write a finite number such as 0.1"),
        ("inf", float, 'expected a number, got "inf"', "write a finite number such as 0.1"),
        ("1e999", float, 'expected a number, got "1e999"', "write a finite number such as 0.1"),
        (10**400, float, f"expected a number, got 1{'0' * 76}...", "write a finite number such as 0.1"),
        (8, str, "expected text, got 8", "put it in double quotes"),
        (True, str, "expected text, got true", "put it in double quotes"),
        (None, str, "expected text, got null", "write a text, or remove the key to take the default"),
        (["a"], str, 'expected text, got ["a"]', "write one text in double quotes"),
        ("eight", int | None, 'expected an integer, got "eight"', NUMBER),
        ("nf5", Quantization, 'expected "nf4" or "fp4", got "nf5"', "did you mean nf4?"),
        ("NF4", Quantization, 'expected "nf4" or "fp4", got "NF4"', "did you mean nf4?"),
        (16, Quantization, 'expected "nf4" or "fp4", got 16', "choose one of them"),
        (True, Literal[1, 8], "expected 1 or 8, got true", "choose one of them"),
        (1, Unsloth, 'expected true, false, "auto" or "require", got 1', "write true"),
        ("requires", Unsloth, 'expected true, false, "auto" or "require", got "requires"', "did you mean require?"),
        ("x", list[str], 'expected a list of text, got "x"', 'write ["x"]'),
        (["x", 8], str | list[str], "item 2: expected text, got 8", "put it in double quotes"),
        (8, str | list[str], "expected text or a list of text, got 8", "put it in double quotes"),
        (8, dict[str, Any], "expected a mapping, got 8", 'write a mapping such as {"key": "value"}'),
        ({1: 2}, dict[str, Any], "expected text as key, got 1", "put the key in double quotes"),
        ({"a": "x"}, dict[str, float], 'a: expected a number, got "x"', "write a finite number such as 0.1"),
        ("a\nb", int, r'expected an integer, got "a\nb"', NUMBER),
    ],
)
def test_refused(value: object, annotation: object, what: str, fix: str) -> None:
    with pytest.raises(CoercionError) as caught:
        coerce(value, annotation)
    assert (caught.value.what, caught.value.fix) == (what, fix)


@pytest.mark.parametrize(
    ("annotation", "description", "schema"),
    [
        (bool, "true or false", {"type": "boolean"}),
        (int, "integer", {"type": "integer"}),
        (float, "number", {"type": "number"}),
        (str, "text", {"type": "string"}),
        (Any, "anything", {}),
        (Quantization, "one of: nf4, fp4", {"enum": ["nf4", "fp4"]}),
        (float | None, "number or null", {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        (
            Unsloth,
            "true or false or one of: auto, require",
            {"anyOf": [{"type": "boolean"}, {"enum": ["auto", "require"]}]},
        ),
        (
            str | list[str],
            "text or list of text",
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        ),
        (list[int], "list of integers", {"type": "array", "items": {"type": "integer"}}),
        (dict[str, Any], "mapping", {"type": "object", "additionalProperties": {}}),
        (
            dict[str, float],
            "mapping of text to numbers",
            {"type": "object", "additionalProperties": {"type": "number"}},
        ),
    ],
)
def test_described(annotation: object, description: str, schema: dict) -> None:
    assert describe_type(annotation) == description
    assert json_schema(annotation) == schema


def test_value_without_json_spelling_is_named_by_its_type() -> None:
    for value, name in ((10**5000, "int"), (Path("x"), type(Path("x")).__name__), ({1, 2}, "set")):
        with pytest.raises(CoercionError, match=f"got a value of type {name}"):
            coerce(value, bool)


def test_containers_are_copied() -> None:
    value = {"a": ["x"]}
    result = coerce(value, dict[str, list[str]])
    result["a"].append("y")
    assert value == {"a": ["x"]}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["true", "8", "2e-4", "auto", Path("x"), 10**4000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON_VALUES, st.sampled_from(ANNOTATIONS))
@settings(max_examples=400, deadline=None)
def test_fits_once_and_for_all_or_is_refused_on_one_line(value: object, annotation: object) -> None:
    try:
        result = coerce(value, annotation)
    except CoercionError as error:
        assert str(error).isprintable() and error.what and error.fix
        return
    again = coerce(result, annotation)
    assert repr(again) == repr(result)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_quotes_is_the_number(integer: int, number: float) -> None:
    assert coerce(str(integer), int) == integer
    assert coerce(repr(number), float) == number

"""Text operations keep each character with its origin: here every character's origin is the character itself."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from component.data.jinja_trace import compile_template, find_tested_literals
from component.data.traced_text import TEMPLATE, TracedText, join_traced, message_origin
from component.data.traced_values import origins_within, trace

TEXT = "  ab c\td\n\nef gh  "
NOW = datetime(2024, 7, 26)


def own(text: str) -> TracedText:
    return TracedText(text, text)


def assert_kept(result: str, expected: str, *, inserted: str = "") -> None:
    """`result` equals `expected`, and each character stems from itself or, if in `inserted`, from the template."""
    assert str.__str__(result) == expected
    assert isinstance(result, TracedText)
    assert result.origin == "".join(TEMPLATE if character in inserted else character for character in expected)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("strip", ()),
        ("lstrip", ()),
        ("rstrip", ()),
        ("strip", (" h",)),
        ("removeprefix", ("  a",)),
        ("removeprefix", ("x",)),
        ("removesuffix", ("h  ",)),
        ("removesuffix", ("",)),
        ("__getitem__", (slice(3, -2),)),
        ("__getitem__", (slice(None, None, -1),)),
        ("__getitem__", (-4,)),
        ("__mul__", (2,)),
    ],
)
def test_text_to_text(name: str, arguments: tuple) -> None:
    assert_kept(getattr(own(TEXT), name)(*arguments), getattr(TEXT, name)(*arguments))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("split", ()),
        ("split", (None, 1)),
        ("split", (" ",)),
        ("split", ("\n", 1)),
        ("rsplit", ()),
        ("rsplit", (None, 1)),
        ("rsplit", (" ", 1)),
        ("splitlines", ()),
        ("splitlines", (True,)),
        ("partition", ("c",)),
        ("partition", ("x",)),
        ("rpartition", (" ",)),
        ("rpartition", ("x",)),
    ],
)
def test_text_to_pieces(name: str, arguments: tuple) -> None:
    pieces, expected = getattr(own(TEXT), name)(*arguments), getattr(TEXT, name)(*arguments)
    assert len(pieces) == len(expected)
    for piece, text in zip(pieces, expected, strict=True):
        assert_kept(piece, text)


def test_joining_marks_what_is_inserted() -> None:
    assert_kept(own("ab").replace("a", "xy"), "xyb", inserted="xy")
    assert_kept("x" + own("ab") + "y", "xaby", inserted="xy")
    assert_kept(TracedText(", ").join([own("a"), own("b")]), "a, b", inserted=", ")
    assert_kept(join_traced("-", [own("a"), 1]), "a-1", inserted="-1")


def test_case_keeps_origin_where_the_length_stays() -> None:
    assert own("ab").upper().origin == "ab"
    assert TracedText("ß", "\1").upper().origin == TEMPLATE * 2  # two characters from one: given up, not guessed


def test_nested_values_are_traced_but_not_their_keys() -> None:
    value = trace({"key": ["a", {"b": "c"}], "number": 1}, message_origin(4))
    assert origins_within(value) == {message_origin(4)}
    assert not isinstance(next(iter(value)), TracedText)


def rendered(source: str, **variables: object) -> TracedText:
    return compile_template(source, now=NOW).render(**variables)


@pytest.mark.parametrize(
    "source, expected",
    [
        ("<{{ x }}>", "<ab>"),
        ("{{ '<' ~ x ~ 1 ~ '>' }}", "<ab1>"),
        ("{{ '<' + x + '>' }}", "<ab>"),
        ("{{ ['<', x] | join('-') }}", "<-ab"),
        ("{% macro m(y) %}<{{ y | trim }}>{% endmacro %}{{ m(x) }}", "<ab>"),
        ("{% set y %}<{{ x }}{% endset %}{{ y }}", "<ab"),
        ("{% for y in [x] %}{{ y }}{% if loop.first %}{% break %}{% endif %}{% endfor %}", "ab"),
        ('{{ x | replace("c", "") }}', "ab"),
        ("{{ (x, 1)[0][:1] }}{{ x[1:] }}", "ab"),
    ],
)
def test_templates_keep_origins(source: str, expected: str) -> None:
    assert_kept(rendered(source, x=own("ab")), expected, inserted="<>-1")


def test_json_of_one_message_is_that_messages() -> None:
    text = rendered("{{ x | tojson }}", x=trace({"a": "é<"}, "\1"))
    assert (str(text), text.origin) == ('{"a": "é<"}', "\1" * 11)


def test_json_of_several_origins_keeps_each() -> None:
    variables = {"x": trace({"k": 'é"', "n": 1}, "\1"), "y": trace(["b"], "\2")}
    for source, expected in {
        "{{ [x, y] | tojson }}": '[{"k": "é\\"", "n": 1}, ["b"]]',
        "{{ [x, y] | tojson(ensure_ascii=true) }}": '[{"k": "\\u00e9\\"", "n": 1}, ["b"]]',
        "{{ [x, y] | tojson(indent=1) }}": json.dumps([variables["x"], variables["y"]], ensure_ascii=False, indent=1),
        "{{ [x, y] | string }}": "[{'k': 'é\"', 'n': 1}, ['b']]",
    }.items():
        text = rendered(source, **variables)
        assert str(text) == expected
        of_x = "".join(character for character, origin in zip(text.plain(), text.origin, strict=True) if origin == "\1")
        assert of_x in ('"é\\""', '"\\u00e9\\""', "'é\"'")
        assert [c for c, origin in zip(text.plain(), text.origin, strict=True) if origin == "\2"][1] == "b"
    assert rendered("{{ x | string }}", x=trace({"k": "v"}, "\1")).origin == "\1" * 10


def test_strftime_now_shows_the_given_moment() -> None:
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


def test_literals_that_a_template_looks_for() -> None:
    source = (
        "{% if '/off' in m.content or m.content.startswith('<r>') or m.content == 'x' or m.role in ['user', 'tool'] %}"
        "{{ m.content.strip('\n') }}{% endif %}"
    )
    searched, compared = find_tested_literals(source)
    assert searched == {"/off", "<r>"}
    assert compared == {"x", "user", "tool"}

"""YAML 1.2 values, positions, and every structural problem with its exact place; the same mapping in JSON is equal."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from component.config.errors import Place
from component.config.json_text import parse_json
from component.config.nodes import MAX_DEPTH, Node, plain
from component.config.yaml_text import MAX_NODES, parse_scalar, parse_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
#: A key with its quotes and escapes ends within 1,024 characters in YAML (implicit keys, YAML 1.2).
KEYS = st.text(max_size=80)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=12)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6)


class QuotedDumper(yaml.SafeDumper):
    """Writes every text in double quotes and all other scalars as JSON does, without the tags of YAML 1.1."""

    yaml_implicit_resolvers: dict = {}

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_as_json(self, value: object) -> yaml.ScalarNode:
        style = '"' if isinstance(value, str) else None
        text = value if isinstance(value, str) else json.dumps(value)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for scalar_type in (str, int, float, bool, type(None)):
    QuotedDumper.add_representer(scalar_type, QuotedDumper.represent_as_json)


def dump(document: dict, flow: bool | None = False) -> str:
    return yaml.dump(document, Dumper=QuotedDumper, default_flow_style=flow, sort_keys=False, width=10**9)


def lines_of(text: str) -> list[str]:
    return [str(problem) for problem in parse_yaml(text, "f.yaml")[1]]


def values_of(text: str) -> dict:
    node, problems = parse_yaml(text, "f.yaml")
    assert not problems and node is not None
    return plain(node)


def typed(value: object) -> object:
    """A value that equals another only where the types are equal too."""
    return type(value), value


SCALAR_CASES = [
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("Off", "Off"),
    ("true", True),
    ("TRUE", True),
    ("False", False),
    ("tRUE", "tRUE"),
    ("null", None),
    ("~", None),
    ("Null", None),
    ("012", "012"),
    ("-012", "-012"),
    ("00.5", "00.5"),
    ("12:30", "12:30"),
    ("2024-01-01", "2024-01-01"),
    ("1_000", "1_000"),
    ("0b11", "0b11"),
    ("0o14", 12),
    ("0x1F", 31),
    ("0", 0),
    ("-3", -3),
    ("+3", 3),
    ("123456789012345678901234567890", 123456789012345678901234567890),
    ("2e-4", 2e-4),
    ("1e5", 1e5),
    ("1E+5", 1e5),
    (".5", 0.5),
    ("1.", 1.0),
    ("-.5", -0.5),
    (".", "."),
    ("e5", "e5"),
    ("1e", "1e"),
    ("'8'", "8"),
    ('"true"', "true"),
    (r'"\ud83d\ude00"', "\U0001f600"),
    ("~/models", "~/models"),
    ("C:\\x", "C:\\x"),
    ("http://host:80/x", "http://host:80/x"),
    ("${oc.env:HOME}/x", "${oc.env:HOME}/x"),
    ("[a, 1, [no]]", ["a", 1, ["no"]]),
    ("{a: 1, b: {c: 2e-4}}", {"a": 1, "b": {"c": 2e-4}}),
]


@pytest.mark.parametrize(("text", "value"), SCALAR_CASES)
def test_value_in_a_file_and_on_the_command_line(text: str, value: object) -> None:
    assert typed(values_of(f"key: {text}\n")["key"]) == typed(value)
    assert typed(parse_scalar(text)) == typed(value)
    assert typed(parse_scalar(f" {text} ")) == typed(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a: b", "@x", "%x", "`x", "- a", "[a", "{a", "? a", "|", "> x", "8 # x", "# x", '"x" y', "&a b", "*a",
     "a\n b", "!!int 8", ".inf", "-.INF", ".nan", "1e999", "--- a", "a\n---\nb", "...", "{a: 1, a: 2}", "{8: 1}",
     "\ufeff8", "\x01", "\u2028", "'x", "[" * 999],
)  # fmt: skip
def test_command_line_text_that_is_no_yaml_value_stays_as_it_is(text: str) -> None:
    assert parse_scalar(text) == text


def test_block_values() -> None:
    text = "a:\n- 1\n- b: no\n  c:\nd: |\n  8\ne: >-\n  x\n  y\nf: two\n  words\n"
    assert values_of(text) == {"a": [1, {"b": "no", "c": None}], "d": "8\n", "e": "x y", "f": "two words"}


def test_aliases_repeat_a_value() -> None:
    repeated = [1, {"b": "no"}]
    assert values_of("a: &x [1, {b: &y no}]\nc: *x\nd: *y\n") == {"a": repeated, "c": repeated, "d": "no"}


def test_positions() -> None:
    node, problems = parse_yaml("# head\na: 1\n'b':\n  c: [true, 2e-4]\n  d:\n  - \U0001f600: x\n", "f.yaml")
    assert problems == []
    assert node is not None
    a, b = node.value["a"], node.value["b"]
    assert a == Node(1, Place("f.yaml", 2, 4), Place("f.yaml", 2, 1))
    assert b.key_place == Place("f.yaml", 3, 1)
    c, d = b.value["c"], b.value["d"]
    assert (c.key_place, c.place) == (Place("f.yaml", 4, 3), Place("f.yaml", 4, 6))
    assert c.value[1] == Node(2e-4, Place("f.yaml", 4, 13))
    assert d.value[0].value["\U0001f600"] == Node("x", Place("f.yaml", 6, 8), Place("f.yaml", 6, 5))


MAPPING = "a train_args file is a mapping, `key: value` lines"
COLON = (
    "a second colon, or a line that is indented too far; "
    "put text that holds a colon and a space in double quotes, or mend the indentation"
)
FLOW_COMMA = "expected ',' or ']' here; put a comma between two entries and close the bracket"
NOT_HERE = "this does not belong here; check the indentation and the quotes"
BOM = "the file begins with a byte-order mark; save it as UTF-8 without BOM"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"1:1: the file is empty; {MAPPING}"),
        ("# only\n", f"1:1: the file is empty; {MAPPING}"),
        ("\n- a\n", f"2:1: the top level is not a mapping; {MAPPING}"),
        ("text\n", f"1:1: the top level is not a mapping; {MAPPING}"),
        ("a:\n\tb: 1\n", "2:1: a tab where YAML takes only spaces; use spaces"),
        ("a:\tb\n", "1:3: a: a tab where YAML takes only spaces; use spaces"),
        ("a: 1\nb: @x\n", "2:4: b: a value cannot begin with @; put the text in double quotes"),
        ("a: 'x\nb: 1\n", "1:4: a: the quote is never closed; close it"),
        ("a:\n  b: [1, 2\n", "2:6: a.b: the bracket is never closed; close it"),
        ("a: [1 [2]]\n", f"1:7: a: {FLOW_COMMA}"),
        ("a: ]\n", "1:4: a: expected a value here; write one, or put the text in double quotes"),
        ("a: - b\n", "1:4: a: a list or a key cannot begin here; begin it on a line of its own"),
        (
            "a: >b\n",
            "1:4: a: text that begins with | or > is a block of lines in YAML; "
            "put the text in double quotes, or begin the block on the next line",
        ),
        ("? " * 66, f"1:131: nested deeper than {MAX_DEPTH} levels; flatten the value"),
        ("a: b: c\n", f"1:5: {COLON}"),
        ("a: 1\n  b: 2\n", f"2:4: {COLON}"),
        ("a: 1\n]\n", f"2:1: {NOT_HERE}"),
        ("  a: 1\nb: 2\n", "2:1: this does not belong here; check the indentation and the quotes"),
        ('a: "\\q"\n', r"1:6: a: unknown escape in double quotes; write \\ for a backslash, or use single quotes"),
        ('a: "\\Uffffffff"\n', "1:5: a: an escape beyond Unicode; write the character itself"),
        ("a: *\n", "1:4: a: text that begins with * or & is an alias or anchor in YAML; put the text in double quotes"),
        ("a: !e!x 1\n", "1:4: a: text that begins with ! is a tag in YAML; put the text in double quotes"),
        ("a: \x01\n", "1:4: the character U+0001 cannot stand in a YAML file; remove it"),
        ("a: x\u2028\n", '1:5: U+2028 ends a line for some readers only; write "\\u2028" in double quotes'),
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins; keep one document in a file"),
        ("%YAML 2.0\n---\na: 1\n", "1:1: the file asks for another version of YAML; remove the %YAML line"),
        ("a: " + "[" * 65, f"1:68: a: nested deeper than {MAX_DEPTH} levels; flatten the value"),
    ],
)
def test_error_ends_parsing(text: str, expected: str) -> None:
    node, problems = parse_yaml(text, "f.yaml")
    assert [str(problem) for problem in problems] == [f"f.yaml:{expected}"]
    assert node is None


@pytest.mark.parametrize(
    ("text", "expected", "values"),
    [
        ("\ufeffa: 1\n", [f"1:1: {BOM}"], {"a": 1}),
        ("a: 1\nb: {c: 1, c: 2}\na: 3\n",
         ["2:11: b.c: duplicate key, first given in line 2; keep one of the two",
          "3:1: a: duplicate key, first given in line 1; keep one of the two"], {"a": 1, "b": {"c": 1}}),
        ("a: .nan\nb: [-.inf, 1]\n", ["1:4: a: .nan is not a number that a config can hold; write a finite number",
                                      "2:5: b[0]: -.inf is not a number that a config can hold; write a finite number"],
         {"b": [1]}),
        ("a: 1e999\n", ["1:4: a: 1e999 is too large a number; write a smaller one, or quote the text"], {}),
        ("8: x\ntrue: 2\non: 3\n[a]: 4\n",
         ["1:1: the key 8 is not text; put it in double quotes",
          "2:1: the key true is not text; put it in double quotes",
          "4:1: this key is not text; put it in double quotes"], {"on": 3}),
        ("<<: {a: 1}\nb: 1\n",
         ["1:1: merge keys (<<) are not supported; name the other file in `base:`, or repeat the keys"], {"b": 1}),
        ("a: !!python/object:os.system x\nb: !x {c: 1}\n",
         ["1:4: a: the tag !!python/object:os.system; write the value without a tag",
          "2:4: b: the tag !x; write the value without a tag"], {"a": "x", "b": {"c": 1}}),
        ("a: *none\nb: 1\n", ["1:4: a: *none repeats nothing, there is no &none before it; put text in double quotes"],
         {"b": 1}),
        ("a: &x {b: [*x]}\n", ["1:12: a.b[0]: *x contains itself; write the value out"], {"a": {"b": []}}),
        ('a: "\\ud800"\n', ["1:4: a: half a surrogate pair in a text; write the character itself"], {"a": "\ufffd"}),
        ("a: x\n  - y\n", ["1:4: a: a list item is read as more of this text; begin the list on a line of its own"],
         {"a": "x - y"}),
    ],
)  # fmt: skip
def test_problem_lets_parsing_go_on(text: str, expected: list[str], values: object) -> None:
    node, problems = parse_yaml(text, "f.yaml")
    assert [str(problem) for problem in problems] == [f"f.yaml:{line}" for line in expected]
    assert node is not None and plain(node) == values


def test_aliases_that_expand_to_millions_are_refused() -> None:
    lines = ["a0: &a0 x", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
    problems = lines_of("\n".join(lines))
    assert len(problems) == 1
    assert problems[0].endswith(f": more than {MAX_NODES} values; write a smaller file, with fewer aliases")
    assert problems[0].startswith("f.yaml:6:10: a5[0]: ")


def test_aliases_that_nest_too_deep_are_refused() -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 80))]
    assert lines_of("\n".join(lines)) == [
        f"f.yaml:64:12: a63[0]: nested deeper than {MAX_DEPTH} levels; flatten the value"
    ]


@given(DOCUMENTS, st.sampled_from([False, True, None]))
@settings(max_examples=100, deadline=None)
def test_json_and_yaml_of_one_mapping_are_equal(document: dict, flow: bool | None) -> None:
    from_json, json_problems = parse_json(json.dumps(document), "f.json")
    from_yaml, yaml_problems = parse_yaml(dump(document, flow), "f.yaml")
    assert json_problems == yaml_problems == []
    assert from_json is not None and from_yaml is not None
    assert repr(plain(from_json)) == repr(plain(from_yaml)) == repr(document)


@given(DOCUMENTS)
@settings(max_examples=60, deadline=None)
def test_json_text_is_yaml_too(document: dict) -> None:
    assert repr(values_of(json.dumps(document))) == repr(document)


@given(DOCUMENTS)
@settings(max_examples=60, deadline=None)
def test_positions_point_at_the_text(document: dict) -> None:
    text = dump(document)
    lines = text.split("\n")

    def check(node: Node) -> None:
        if node.key_place is not None:
            assert lines[node.key_place.line - 1][node.key_place.column - 1] in '"?'
        if isinstance(node.value, dict | list):
            for child in node.value.values() if isinstance(node.value, dict) else node.value:
                check(child)
            return
        rest = lines[node.place.line - 1][node.place.column - 1 :]
        assert rest.startswith('"' if isinstance(node.value, str) else json.dumps(node.value))

    node, problems = parse_yaml(text, "f.yaml")
    assert problems == [] and node is not None
    check(node)


@given(DOCUMENTS, st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_mutations_give_problems_never_exceptions(document: dict, flow: bool, data: st.DataObject) -> None:
    text = dump(document, flow)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 3))
        insert = data.draw(st.text("{}[]\",:\\#&*!|>%@`?-~<. \t\n'u08U\ud800\ufeff\0\x85e", max_size=4))
        text = text[:at] + insert + text[at + length :]
    node, problems = parse_yaml(text, "f.yaml")
    for problem in problems:
        assert str(problem).isprintable()
        assert problem.place.line >= 1 and problem.place.column >= 1
        assert problem.what and problem.fix
    assert problems or node is not None
    assert parse_scalar(text) is not NotImplemented

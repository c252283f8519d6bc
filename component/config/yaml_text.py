"""YAML 1.2 scalars and strict structure with the position of every key and value, on PyYAML's event stream.

PyYAML reads YAML 1.1, where `no` is false and `012` is 10: its events carry the text of each scalar, and what that text
means is decided here, as the JSON of the same mapping would have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

from component.config.errors import Place, Problem
from component.config.nodes import MAX_DEPTH, Node, ParseStop, Path, Report, excerpt, join_surrogates, plain
from component.config.scalars import is_not_finite, scalar_from_text
from component.config.yaml_syntax import explain_syntax_error

MAX_NODES = 20_000
"""Values a YAML file may have once its aliases are expanded; a few lines can spell millions."""

_ODD_LINE_BREAK = re.compile("[\x85\u2028\u2029]")
_LIST_ITEM_LINE = re.compile(r"[\r\n]\s*- ")
_MAPPING = "a train_args file is a mapping, `key: value` lines"
_UNREADABLE = object()
"""Stands for a value that was reported and is left out of its mapping or list."""


def parse_yaml(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Parse the text of a YAML file whose top level is a mapping.

    Duplicate keys, keys that are not text, tags, merge keys, aliases of nothing and infinities are reported and parsing
    goes on; an error of syntax ends it.

    Args:
        text: the content of the file.
        file: its name in the positions.

    Returns:
        The mapping with positions (None when the text has none that can be read) and the problems in the order of
        their position. The first of two equal keys counts; an entry whose value cannot be read is left out.
    """
    bare = text.removeprefix("\ufeff")
    report = Report(bare, file)
    if bare != text:
        report.add(0, (), "the file begins with a byte-order mark", "save it as UTF-8 without BOM")
    builder = _Builder(bare, report)
    try:
        node = builder.document()
        if not isinstance(node.value, dict):
            raise report.stop(builder.root_start, (), "the top level is not a mapping", _MAPPING)
    except ParseStop:
        return None, report.sorted()
    return node, report.sorted()


def parse_scalar(text: str) -> Any:
    """Return the value of the VALUE in a `KEY=VALUE` of the command line, read like a value in a YAML file.

    Scalars, quoted text and flow collections (`[a, b]`, `{a: 1}`) are YAML; any other text, such as `a: b`, `@x` or
    `# x`, is taken as it is.
    """
    builder = _Builder(text, Report(text, ""))
    try:
        node = builder.document()
    except ParseStop:
        return text
    content = text.strip(" \t\r\n")
    start = text.find(content)
    is_whole = (builder.root_start, builder.root_end) == (start, start + len(content))
    is_folded = isinstance(node.value, str) and not builder.root_style and node.value != content
    is_yaml = content and is_whole and builder.root_style != "block" and not is_folded and not builder.anchors
    return plain(node) if is_yaml and not builder.report.problems else text


def explain_scalar(text: str) -> str:
    """Say why `parse_scalar` takes a text as it is, and at which of its characters."""
    builder = _Builder(text, Report(text, ""))
    with suppress(ParseStop):
        builder.document()
    problems = builder.report.sorted()
    if not problems:
        return "more text follows its end"
    return f"{problems[0].what} (at character {problems[0].place.column})"


class _Builder:
    """Turns the events of one text into nodes."""

    def __init__(self, text: str, report: Report) -> None:
        self.text = text
        self.report = report
        self.events: Iterator[Any] = yaml.parse(text, yaml.SafeLoader)
        self.event: Any = None
        self.path: Path = ()
        self.depth = 0  # keys may nest too, so this is not the length of the path
        self.key_line = 0
        self.anchors: dict[str, Node | None] = {}
        self.num_nodes = 0
        self.root_start = self.root_end = 0
        self.root_style = ""

    def document(self) -> Node:
        """The only document of the text."""
        odd = _ODD_LINE_BREAK.search(self.text)
        if odd:
            # PyYAML ends a line there, YAML 1.2 and editors do not.
            code = ord(odd.group())
            what = f"U+{code:04X} ends a line for some readers only"
            raise self.stop(odd.start(), what, f'write "\\u{code:04x}" in double quotes')
        self.advance(2)
        if not isinstance(self.event, yaml.DocumentStartEvent):
            raise self.stop(0, "the file is empty", _MAPPING)
        self.advance()
        self.root_start = self.event.start_mark.index
        self.root_style = _style(self.event)
        value = self.value()
        self.root_end = self.event.end_mark.index
        self.advance(2)
        if isinstance(self.event, yaml.DocumentStartEvent):
            raise self.stop(self.event.start_mark.index, "a second document begins", "keep one document in a file")
        return Node(None if value is _UNREADABLE else value, self.report.place(self.root_start))

    def advance(self, count: int = 1) -> None:
        """Step to the next event, or `count` events on."""
        for _ in range(count):
            try:
                self.event = next(self.events)
            except (yaml.YAMLError, ValueError, OverflowError) as error:
                # The last two come from escapes beyond Unicode and from version numbers of thousands of digits.
                index, what, fix = explain_syntax_error(error, self.text, self.here())
                is_at_key = self.report.place(index).line == self.key_line
                raise self.report.stop(index, self.path if is_at_key else (), what, fix) from error

    def here(self) -> int:
        """The index up to which the text has been read."""
        return self.event.end_mark.index if self.event else 0

    def value(self) -> Any:
        """The value that begins at the current event; afterwards the current event is its last."""
        event, start = self.event, self.event.start_mark.index
        self.count(1, start)
        if self.depth > MAX_DEPTH:
            self.path = self.path[:1]
            raise self.stop(start, f"nested deeper than {MAX_DEPTH} levels", "flatten the value")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor, start)
        if event.tag is not None:
            self.add(start, f"the tag {excerpt(_shorten_tag(event.tag))}", "write the value without a tag")
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # open until the value is complete
        self.depth += 1
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self.mapping()
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence()
        else:
            value = self.scalar(event, start)
        self.depth -= 1
        if event.anchor is not None:
            self.anchors[event.anchor] = Node(value, self.report.place(start))
        return value

    def scalar(self, event: yaml.ScalarEvent, start: int) -> Any:
        """A scalar: text when quoted or in block style, else what YAML 1.2 says."""
        text, is_broken = join_surrogates(event.value)
        if is_broken:
            self.add(start, "half a surrogate pair in a text", "write the character itself")
        if event.style:
            return text
        if _LIST_ITEM_LINE.search(self.text, start, event.end_mark.index):
            self.add(start, "a list item is read as more of this text", "begin the list on a line of its own")
        if is_not_finite(text):
            self.add(start, f"{text} is not a number that a config can hold", "write a finite number")
            return _UNREADABLE
        value = scalar_from_text(text)
        if isinstance(value, float) and math.isinf(value):
            self.add(start, f"{excerpt(text)} is too large a number", "write a smaller one, or quote the text")
            return _UNREADABLE
        return value

    def mapping(self) -> dict[str, Node]:
        """A mapping, from its start event to its end event."""
        outer = self.path
        entries: dict[str, Node] = {}
        first_places: dict[str, Place] = {}
        self.advance()
        while not isinstance(self.event, yaml.MappingEndEvent):
            start = self.event.start_mark.index
            place = self.report.place(start)
            key = self.key(start)
            self.path, self.key_line = (*outer, key or "?"), place.line
            self.advance()
            value_place = self.report.place(self.event.start_mark.index)
            value = self.value()
            if key is not None:
                first = first_places.setdefault(key, place)
                if first is not place:
                    self.add(start, f"duplicate key, first given in line {first.line}", "keep one of the two")
                elif value is not _UNREADABLE:
                    entries[key] = Node(value, value_place, place)
            self.path = outer
            self.advance()
        return entries

    def key(self, start: int) -> str | None:
        """The key that begins at the current event; None when it was reported and cannot be used."""
        is_plain = isinstance(self.event, yaml.ScalarEvent) and not self.event.style
        if is_plain and self.event.value == "<<":
            self.add(start, "merge keys (<<) are not supported", "name the other file in `base:`, or repeat the keys")
            return None
        num_problems = len(self.report.problems)
        key = self.value()
        if isinstance(key, str):
            return key
        if len(self.report.problems) == num_problems:
            shown = f"the key {excerpt(self.event.value)}" if is_plain else "this key"
            self.add(start, f"{shown} is not text", "put it in double quotes")
        return None

    def sequence(self) -> list[Node]:
        """A list, from its start event to its end event."""
        outer = self.path
        nodes: list[Node] = []
        self.advance()
        index = 0
        while not isinstance(self.event, yaml.SequenceEndEvent):
            self.path = (*outer, index)
            place = self.report.place(self.event.start_mark.index)
            value = self.value()
            if value is not _UNREADABLE:
                nodes.append(Node(value, place))
            self.path = outer
            index += 1
            self.advance()
        return nodes

    def alias(self, anchor: str, start: int) -> Any:
        """The value that `*anchor` repeats."""
        name = excerpt(anchor)
        if anchor not in self.anchors:
            self.add(start, f"*{name} repeats nothing, there is no &{name} before it", "put text in double quotes")
            return _UNREADABLE
        node = self.anchors[anchor]
        if node is None:
            self.add(start, f"*{name} contains itself", "write the value out")
            return _UNREADABLE
        self.measure(node.value, self.depth, start)
        return node.value

    def measure(self, value: Any, depth: int, start: int) -> None:
        """Count the values that an alias adds, and hold the limit of depth."""
        if depth > MAX_DEPTH:
            raise self.stop(start, f"nested deeper than {MAX_DEPTH} levels", "flatten the value")
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for child in children:
            self.count(1, start)
            self.measure(child.value, depth + 1, start)

    def count(self, num_nodes: int, start: int) -> None:
        """Add to the number of values so far, and hold its limit."""
        self.num_nodes += num_nodes
        if self.num_nodes > MAX_NODES:
            raise self.stop(start, f"more than {MAX_NODES} values", "write a smaller file, with fewer aliases")

    def add(self, index: int, what: str, fix: str) -> None:
        """Record a problem of the value that is being read."""
        self.report.add(index, self.path, what, fix)

    def stop(self, index: int, what: str, fix: str) -> ParseStop:
        """Record a problem that ends the parsing."""
        return self.report.stop(index, self.path, what, fix)


def _style(event: yaml.Event) -> str:
    """How the value that begins at `event` is written: "" for a plain scalar, "quoted", "flow" or "block"."""
    if isinstance(event, yaml.CollectionStartEvent):
        return "flow" if event.flow_style else "block"
    return {"|": "block", ">": "block", "'": "quoted", '"': "quoted"}.get(getattr(event, "style", None) or "", "")


def _shorten_tag(tag: str) -> str:
    """Spell a tag as it is written in a file."""
    return "!!" + tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml.org,2002:") else tag

"""Strict JSON with the position of every key and value, reporting all structural problems of a text at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from component.config.errors import Place, Problem
from component.config.nodes import MAX_DEPTH, Node, ParseStop, Path, Report, excerpt, join_surrogates
from component.config.scalars import number_from_text

_BLANKS = re.compile(r"[ \t\r\n]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_BARE_WORD = re.compile(r"[^\s,:\[\]{}\"'/#]+")
_STRING_RUN = {quote: re.compile(rf"[^{quote}\\\x00-\x1f]*") for quote in "\"'"}
_SHORT_STRING = re.compile(r'"[^"\r\n]*"')
_LINE_COMMENT = re.compile(r"(?://|#)[^\r\n]*")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CONTROL_ESCAPES = {"\b": "\\b", "\f": "\\f", "\t": "\\t"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity", "+Infinity")
_OBJECT = 'a train_args file is one JSON object, { "key": value, ... }'
_UNREADABLE = object()
"""Stands for a value that was reported and is left out of its mapping or list."""


def parse_json(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Parse the text of a JSON file whose top level is an object.

    Trailing commas, comments, a byte-order mark, single quotes, duplicate keys, NaN and wrong escapes are reported and
    parsing goes on; any other error of syntax ends it.

    Args:
        text: the content of the file.
        file: its name in the positions.

    Returns:
        The object with positions (None when the text has none that can be read) and the problems in the order of
        their position. The first of two equal keys counts; an entry whose value cannot be read is left out.
    """
    bare = text.removeprefix("\ufeff")
    parser = _Parser(bare, Report(bare, file))
    if bare != text:
        parser.report.add(0, (), "the file begins with a byte-order mark", "save it as UTF-8 without BOM")
    try:
        node = parser.document()
    except ParseStop:
        node = None
    return node, parser.report.sorted()


class _Parser:
    """Recursive descent over one text; `at` is the index of the next character."""

    def __init__(self, text: str, report: Report) -> None:
        self.text = text
        self.report = report
        self.at = 0
        self.path: Path = ()

    def document(self) -> Node:
        """The whole text: one object and nothing after it."""
        self.skip_blanks()
        if self.peek() == "":
            raise self.stop(0 if self.text.isspace() else self.at, "the file is empty", _OBJECT)
        start = self.at
        node = self.value()
        if node is None or not isinstance(node.value, dict):
            raise self.stop(start, "the top level is not an object", _OBJECT)
        self.skip_blanks()
        if self.peek():
            self.add(self.at, f"{self.found()} stands after the end of the object", "remove what follows the last }")
        return node

    def value(self) -> Node | None:
        """The value at `at`; None when it was reported and cannot be used."""
        start = self.at
        if len(self.path) > MAX_DEPTH:
            self.path = self.path[:1]
            raise self.stop(start, f"nested deeper than {MAX_DEPTH} levels", "flatten the value")
        parsers: dict[str, Callable[[], Any]] = {
            "{": self.mapping,
            "[": self.sequence,
            '"': self.string,
            "'": self.string,
        }
        value = parsers.get(self.peek(), self.bare_word)()
        return None if value is _UNREADABLE else Node(value, self.report.place(start))

    def mapping(self) -> dict[str, Node]:
        """An object, from its { to its }."""
        outer = self.path
        entries: dict[str, Node] = {}
        first_places: dict[str, Place] = {}
        for _ in self.items("{", "}"):
            start = self.at
            if self.peek() not in ('"', "'"):
                raise self.stop(start, f"expected a key in double quotes, got {self.found()}", self.key_fix())
            key = self.string()
            self.path = (*outer, key)
            self.skip_blanks()
            if self.peek() != ":":
                raise self.stop(self.at, f"expected a colon after the key, got {self.found()}", "write a colon there")
            self.at += 1
            self.skip_blanks()
            node = self.value()
            place = self.report.place(start)
            first = first_places.setdefault(key, place)
            if first is not place:
                self.add(start, f"duplicate key, first given in line {first.line}", "keep one of the two")
            elif node is not None:
                entries[key] = Node(node.value, node.place, place)
            self.path = outer
        return entries

    def sequence(self) -> list[Node]:
        """An array, from its [ to its ]."""
        outer = self.path
        nodes: list[Node] = []
        for index in self.items("[", "]"):
            self.path = (*outer, index)
            node = self.value()
            if node is not None:
                nodes.append(node)
            self.path = outer
        return nodes

    def items(self, opening: str, closing: str) -> Iterator[int]:
        """Step through the places where an item begins, checking the commas between them."""
        start, comma, index = self.at, -1, 0
        self.at += 1
        while True:
            self.skip_blanks()
            if self.peek() == closing:
                if comma >= 0:
                    self.add(comma, f"trailing comma before {closing}", "remove the comma")
                self.at += 1
                return
            if not self.peek():
                what = f"the file ends inside the {opening} of line {self.report.place(start).line}"
                raise self.stop(self.at, what, f"close it with {closing}")
            if index and comma < 0:
                what = f"expected a comma or {closing}, got {self.found()}"
                raise self.stop(self.at, what, "put a comma between two entries")
            yield index
            self.skip_blanks()
            comma, index = -1, index + 1
            if self.peek() == ",":
                comma = self.at
                self.at += 1

    def string(self) -> str:
        """A string, from its opening quote to its closing one."""
        start, quote = self.at, self.peek()
        if quote == "'":
            self.add(start, "single quotes around text", "JSON takes double quotes")
        self.at += 1
        parts = []
        while True:
            run = _STRING_RUN[quote].match(self.text, self.at)
            assert run is not None
            parts.append(run.group())
            self.at = run.end()
            char = self.peek()
            if char == quote:
                break
            if char == "\\":
                parts.append(self.escape(quote))
            elif char and char not in "\r\n":
                escape = _CONTROL_ESCAPES.get(char, f"\\u{ord(char):04x}")
                self.add(self.at, f"control character U+{ord(char):04X} inside a string", f"write {escape}")
                parts.append(char)
                self.at += 1
            else:
                raise self.stop(start, "the string is not closed on its line", f"close it with {quote}")
        self.at += 1
        value, is_broken = join_surrogates("".join(parts))
        if is_broken:
            self.add(start, "half a surrogate pair in a string", "write the character itself")
        return value

    def escape(self, quote: str) -> str:
        """What a backslash and the characters after it stand for; a wrong one is reported and kept as it is."""
        start, char = self.at, self.text[self.at + 1 : self.at + 2]
        self.at += 1
        if char in _ESCAPES or char == quote:
            self.at += 1
            return _ESCAPES.get(char, char)
        digits = self.text[start + 2 : start + 6]
        if char == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            self.at += 5
            return chr(int(digits, 16))
        if char == "u":
            self.add(start, r"\u without four hexadecimal digits", r"write \\u for a backslash and a u")
        elif char and char not in "\r\n":
            self.add(start, f"unknown escape \\{excerpt(char)} in a string", r"write \\ for a backslash")
        return "\\"

    def bare_word(self) -> Any:
        """A number or one of true, false and null."""
        start = self.at
        match = _BARE_WORD.match(self.text, self.at)
        word = match.group() if match else ""
        self.at += len(word)
        if word in _WORDS:
            return _WORDS[word]
        if word in _PYTHON_WORDS:
            self.add(start, f"{word} is not JSON", f"write {_PYTHON_WORDS[word]}")
            return _WORDS[_PYTHON_WORDS[word]]
        if word in _NOT_FINITE:
            self.add(start, f"{word} is not a number that a config can hold", "write a finite number")
            return _UNREADABLE
        if _NUMBER.fullmatch(word):
            number = number_from_text(word)
            if number is not None and not math.isinf(number):
                return number
            self.add(start, f"{excerpt(word)} is too large a number", "write a smaller one")
            return _UNREADABLE
        self.at = start
        fix = "put text in double quotes" if word else "write a value there"
        if word[:1] in "+-.0123456789" and word:
            fix = "write a number such as 8, 0.5 or 2e-4, or put text in double quotes"
        raise self.stop(start, f"expected a value, got {self.found()}", fix)

    def skip_blanks(self) -> None:
        """Step over blanks, and over comments, which are reported."""
        while True:
            blanks = _BLANKS.match(self.text, self.at)
            if blanks:
                self.at = blanks.end()
            start = self.at
            comment = _LINE_COMMENT.match(self.text, start)
            if comment:
                self.at = comment.end()
            elif self.text.startswith("/*", start):
                end = self.text.find("*/", start + 2)
                if end < 0:
                    raise self.stop(start, "a comment that is never closed", "remove it, JSON has no comments")
                self.at = end + 2
            else:
                return
            self.add(start, "JSON has no comments", "remove it, or use a YAML file, where # begins a comment")

    def peek(self) -> str:
        """The next character, empty at the end."""
        return self.text[self.at : self.at + 1]

    def found(self) -> str:
        """What stands at `at`, for messages."""
        if not self.peek():
            return "the end of the file"
        match = _SHORT_STRING.match(self.text, self.at) or _BARE_WORD.match(self.text, self.at)
        return excerpt(match.group() if match else self.peek())

    def key_fix(self) -> str:
        """What to do about a key that is not in quotes."""
        match = _BARE_WORD.match(self.text, self.at)
        return f'write "{excerpt(match.group())}"' if match else "write a key there"

    def add(self, index: int, what: str, fix: str) -> None:
        """Record a problem of the value that is being read."""
        self.report.add(index, self.path, what, fix)

    def stop(self, index: int, what: str, fix: str) -> ParseStop:
        """Record a problem that ends the parsing."""
        return self.report.stop(index, self.path, what, fix)

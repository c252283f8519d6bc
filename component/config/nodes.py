"""Parsed config values that know where they were written, and the positions of a text."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from component.config.errors import Place, Problem

MAX_DEPTH = 64
"""Levels of nesting a config file may have."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SURROGATE_PAIR = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")

Path = tuple[str | int, ...]
"""Where a value is inside its file: keys of mappings and indices of lists."""


@dataclass(frozen=True)
class Node:
    """One value of a config file.

    Args:
        value: a scalar (str, int, float, bool, None), a mapping `dict[str, Node]` or a list `list[Node]`.
        place: where the value begins.
        key_place: where its key begins; None for list items and the top level.
    """

    value: Any
    place: Place
    key_place: Place | None = None


def plain(node: Node) -> Any:
    """Return the value of `node` as built-in dicts, lists and scalars, without positions."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


class ParseStop(Exception):
    """Parsing cannot go on; the problem has been recorded."""


class Report:
    """Collects the problems of one text, each with its line and column.

    Columns count characters from 1; a byte-order mark is taken off before and counts nothing.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._line_starts = [0, *(match.end() for match in _LINE_BREAK.finditer(text))]

    def place(self, index: int) -> Place:
        """The line and column of the character at `index`."""
        line = bisect_right(self._line_starts, index)
        return Place(self.file, line, index - self._line_starts[line - 1] + 1)

    def add(self, index: int, path: Path, what: str, fix: str) -> None:
        """Record a problem at `index`."""
        self.problems.append(Problem(self.place(index), dotted(path), what, fix))

    def stop(self, index: int, path: Path, what: str, fix: str) -> ParseStop:
        """Record a problem that ends the parsing, and return the exception to raise."""
        self.add(index, path, what, fix)
        return ParseStop(what)

    def sorted(self) -> list[Problem]:
        """All problems in the order of their position."""
        return sorted(self.problems)


def dotted(path: Path) -> str:
    """Spell a path as `key.key[0].key`; characters that would break a line are escaped."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (excerpt(part))
    return text


def spell(value: Any, limit: int = 80) -> str:
    """Spell a value as JSON on one line for a message, cut to `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return excerpt(text, limit)


def excerpt(text: str, limit: int = 40) -> str:
    """Cut a text to `limit` characters and escape what would break the line of a message."""
    shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def join_surrogates(text: str) -> tuple[str, bool]:
    r"""Turn pairs of UTF-16 surrogates (`\ud83d\ude00`) into their character.

    Returns:
        The text, where half pairs are replaced by U+FFFD, and whether there were any.
    """
    joined = _SURROGATE_PAIR.sub(lambda pair: pair.group().encode("utf-16", "surrogatepass").decode("utf-16"), text)
    whole, num_halves = _SURROGATE.subn("\N{REPLACEMENT CHARACTER}", joined)
    return whole, num_halves > 0

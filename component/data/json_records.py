"""One JSON value to a record, or to the reason why it is none; and JSON that a record holds as text."""

from __future__ import annotations

import json
import re
from typing import Any

from component.data.records import MAX_RECORD_BYTES, over_long
from component.data.rows import RowError

_BLANKS = re.compile(r"[ \t\r\n]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
#: What a decoder says of a number that Python refuses to read; nobody knows where in the value it stands.
TOO_MANY_DIGITS = "a number with too many digits"
#: A value that is nested deeper is a mistake, and code that calls itself for each level would end with it.
MAX_DEPTH = 64
_TOO_DEEP = f"nested too deeply: over {MAX_DEPTH} levels"
_JSON_KINDS = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}


class RecordDecoder:
    """Decodes one JSON value at a time and says what is wrong with it as a record."""

    def __init__(self) -> None:
        self._duplicate: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._build_object)

    def _build_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build a mapping; a duplicate key is remembered, since raising here would lose the end of the value."""
        built = dict(pairs)
        if len(built) < len(pairs):
            seen: set[str] = set()
            self._duplicate = next(name for name, _ in pairs if name in seen or seen.add(name))
        return built

    def decode(self, text: str, start: int) -> tuple[dict[str, Any] | RowError, int]:
        """Decode the value that begins at `start`.

        Args:
            text: the text it stands in; bytes that are not UTF-8 are there as surrogate escapes.
            start: index of its first character.

        Returns:
            The record, or why it is none, and the index after it.

        Raises:
            json.JSONDecodeError: the text is not JSON, so that the value has no end.
        """
        self._duplicate = None
        try:
            value, end = self._decoder.raw_decode(text, start)
            return self._check(value, text[start:end]), end
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text, start) from None
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python refuses to read integers of more than 4,300 digits
            raise json.JSONDecodeError(TOO_MANY_DIGITS, text, start) from None

    def _check(self, value: Any, text: str) -> dict[str, Any] | RowError:
        """The value if it is a usable record."""
        if len(text) > MAX_RECORD_BYTES:
            return over_long(len(text))
        if not isinstance(value, dict):
            return RowError(f"not an object: {_JSON_KINDS.get(type(value), 'null')}")
        if not _is_unicode(text):
            return RowError("invalid UTF-8")
        fault = self._fault(value, text)
        return value if fault is None else RowError(fault)

    def decode_nested(self, text: str) -> tuple[Any, str | None]:
        """Decode any value that a record holds as JSON text.

        Returns:
            The value, and what makes it unusable all the same; None if nothing does.

        Raises:
            ValueError: the text is not JSON.
        """
        self._duplicate = None
        try:
            value = self._decoder.decode(text)
        except RecursionError:
            return None, _TOO_DEEP
        return value, self._fault(value, text)

    def _fault(self, value: Any, text: str) -> str | None:
        """What is wrong with the value of a text, whatever kind of value it is."""
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
            return _TOO_DEEP
        if self._duplicate is not None:
            return f"duplicate key: {self._duplicate!r}"
        if _SURROGATE_ESCAPE.search(text) and not _is_unicode(json.dumps(value, ensure_ascii=False)):
            return "lone surrogate: half of a \\u pair stands alone"
        return None


def read_json_line(text: str, decoder: RecordDecoder) -> dict[str, Any]:
    """Read one line of a JSON Lines file.

    Args:
        text: the line; not blank.

    Raises:
        RowError: it is not one JSON object.
    """
    try:
        value, end = decoder.decode(text, _skip_blanks(text, 0))
        rest = _skip_blanks(text, end)
        if rest < len(text):
            raise json.JSONDecodeError("more text after the object", text, rest)
    except json.JSONDecodeError as error:
        if text.strip() == "[":
            raise RowError("bad JSON: a line with [ alone; name the file .json if it is an array") from None
        hint = "; lines must end with \\n, not with \\r alone" if "}\r{" in text else ""
        raise RowError(f"bad JSON: {describe_json_error(error)}, column {error.colno}{hint}") from None
    if isinstance(value, RowError):
        raise value
    return value


def describe_json_error(error: json.JSONDecodeError) -> str:
    """What the decoder found, in words that end before a place."""
    what = error.msg.removesuffix(" at").removesuffix(" starting")
    return what[:1].lower() + what[1:]


def _skip_blanks(text: str, at: int) -> int:
    return _BLANKS.match(text, at).end()  # type: ignore[union-attr]


def _is_deeper(value: Any, num_levels: int) -> bool:
    """Whether lists and objects are within each other on more levels than that."""
    level = [value]
    for _ in range(num_levels):
        containers = (item for item in level if isinstance(item, dict | list))
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, dict | list) for item in level)


def _is_unicode(text: str) -> bool:
    """Whether the text holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

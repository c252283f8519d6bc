"""JSON text to records, each with the line on which it begins, and bad ones with their reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from component.config.errors import DataError
from component.data.records import MAX_RECORD_BYTES
from component.data.rows import RowError

_BLANKS = re.compile(r"[ \t\r\n]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
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
            raise json.JSONDecodeError("a number with too many digits", text, start) from None

    def _check(self, value: Any, text: str) -> dict[str, Any] | RowError:
        """The value if it is a usable record."""
        if len(text) > MAX_RECORD_BYTES:
            return RowError(f"over-long record: {len(text):,} characters, at most {MAX_RECORD_BYTES:,} are read")
        if not isinstance(value, dict):
            return RowError(f"not an object: {_JSON_KINDS.get(type(value), 'null')}")
        if self._duplicate is not None:
            return RowError(f"duplicate key: {self._duplicate!r}")
        if not _is_unicode(text):
            return RowError("invalid UTF-8")
        if _SURROGATE_ESCAPE.search(text) and not _is_unicode(json.dumps(value, ensure_ascii=False)):
            return RowError("lone surrogate: half of a \\u pair stands alone")
        return value


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
        raise RowError(f"bad JSON: {describe_json_error(error)}, column {error.colno}") from None
    if isinstance(value, RowError):
        raise value
    return value


def scan_json(text: str, file: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Read a JSON array of objects, or objects that follow each other without one.

    Args:
        text: the content of the file.
        file: its name, for messages.

    Yields:
        The line on which each record begins, from 1, and the record or why it cannot be used.

    Raises:
        DataError: the text is not JSON at some place; what follows cannot be told apart, let alone counted.
    """
    decoder = RecordDecoder()
    at = _skip_blanks(text, 0)
    is_array = text[at : at + 1] == "["
    at = _skip_blanks(text, at + 1) if is_array else at
    line, counted = 1, 0
    is_first = True
    while True:
        if text[at : at + 1] == ("]" if is_array and is_first else ""):
            break
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.decode(text, at)
            yield line, value
            at = _skip_blanks(text, at)
            if is_array:
                at, is_last = _after_record(text, at)
                if is_last:
                    break
        except json.JSONDecodeError as error:
            place = f"{file}:{error.lineno}"
            what = f"bad JSON: {describe_json_error(error)}, column {error.colno}"
            raise DataError(
                f"{place}: {what}; no row after it can be read: correct it, or use .jsonl, one object a line"
            ) from None
        is_first = False
    if is_array and (rest := _skip_blanks(text, at + 1)) < len(text):
        line += text.count("\n", counted, rest)
        raise DataError(f"{file}:{line}: bad JSON: more text after the array; remove what follows the ]")


def _after_record(text: str, at: int) -> tuple[int, bool]:
    """Step over the comma after a record of an array, or say that the array ends."""
    if text[at : at + 1] == "]":
        return at, True
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("the array goes on without a comma or ends without a ]", text, at)
    return _skip_blanks(text, at + 1), False


def describe_json_error(error: json.JSONDecodeError) -> str:
    """What the decoder found, in words that end before a place."""
    what = error.msg.removesuffix(" at").removesuffix(" starting")
    return what[:1].lower() + what[1:]


def _skip_blanks(text: str, at: int) -> int:
    return _BLANKS.match(text, at).end()  # type: ignore[union-attr]


def _is_unicode(text: str) -> bool:
    """Whether the text holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

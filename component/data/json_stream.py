"""JSON arrays, and objects that follow each other, read record by record without holding the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from component.config.errors import DataError
from component.data.json_records import TOO_MANY_DIGITS, RecordDecoder, describe_json_error
from component.data.records import MAX_RECORD_BYTES, over_long
from component.data.rows import RowError

#: How much is read at a time; a longer record is held as well, up to MAX_RECORD_BYTES characters.
_CHUNK_CHARACTERS = 2**20
#: An error closer to the end of the window than the longest literal, -Infinity, may vanish with more text.
_MARGIN = 16

_BLANKS = re.compile(r"[ \t\r\n]*")
#: Up to the end of a string, and up to the next bracket, over the strings before it; or to the end of the window.
_TO_QUOTE = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TO_BRACKET = re.compile(r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)


def scan_json(
    stream: TextIO, file: str, *, num_characters: int = _CHUNK_CHARACTERS
) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Read a JSON array of objects, or objects that follow each other without one.

    Args:
        stream: the content of the file; bytes that are not UTF-8 are there as surrogate escapes.
        file: its name, for messages.
        num_characters: how many are read at a time; the result does not depend on it.

    Yields:
        The line on which each record begins, from 1, and the record or why it cannot be used.

    Raises:
        DataError: the text is not JSON at some place; what follows cannot be told apart, let alone counted.
    """
    window = _Window(stream, num_characters)
    try:
        is_array = yield from _scan_records(window)
    except json.JSONDecodeError as error:
        line, column = window.place(error.pos)
        raise DataError(
            f"{file}:{line}: bad JSON: {describe_json_error(error)}, column {column}; "
            "no row after it can be read: correct it, or use .jsonl, one object a line"
        ) from None
    if is_array:
        window.step()
        if window.current:
            raise DataError(f"{file}:{window.line}: bad JSON: more text after the array; remove what follows the ]")


def _scan_records(window: _Window) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Read up to the end of the array, or of the text; returns whether it is an array.

    Raises:
        json.JSONDecodeError: at a position of the window.
    """
    decoder = RecordDecoder()
    window.skip_blanks()
    is_array = window.current == "["
    if is_array:
        window.step()
    is_over = window.current == ("]" if is_array else "")
    while not is_over:
        line = window.line
        yield line, window.decode(decoder)
        window.skip_blanks()
        if is_array and window.current == ",":
            window.step()
        elif is_array and window.current != "]":
            raise window.error("the array goes on without a comma or ends without a ]")
        else:
            is_over = is_array or not window.current
    return is_array


class _Window:
    """The part of a text around a position; what lies before the position is forgotten when more is read.

    Args:
        stream: where the text comes from.
        num_characters: how many are read at a time.

    Attributes:
        at: the position, as an index of the window.
    """

    def __init__(self, stream: TextIO, num_characters: int) -> None:
        self.at = 0
        self._stream = stream
        self._num_characters = num_characters
        self._text = ""
        self._is_final = False
        self._start = 1, 1
        self._line, self._counted = 1, 0

    @property
    def current(self) -> str:
        """The character at the position; empty at the end of the text, once blanks are skipped."""
        return self._text[self.at : self.at + 1]

    @property
    def line(self) -> int:
        """The line of the position, from 1."""
        self._line += self._text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def place(self, position: int) -> tuple[int, int]:
        """Line and column, both from 1, of an index of the window."""
        line, column = self._start
        num_lines = self._text.count("\n", 0, position)
        if not num_lines:
            return line, column + position
        return line + num_lines, position - self._text.rfind("\n", 0, position)

    def error(self, message: str) -> json.JSONDecodeError:
        """What is wrong at the position."""
        return json.JSONDecodeError(message, self._text, self.at)

    def step(self) -> None:
        """Go over one character and the blanks after it."""
        self.at += 1
        self.skip_blanks()

    def skip_blanks(self) -> None:
        """Go on to the next character that is not blank."""
        while True:
            self.at = _BLANKS.match(self._text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self._text) or not self._read_more():
                return

    def decode(self, decoder: RecordDecoder) -> dict[str, Any] | RowError:
        """Decode the value at the position and go to its end.

        The value is tried again with twice the text where it may go on, so that all trials together cost as much
        as two.

        Raises:
            json.JSONDecodeError: the text is not JSON.
        """
        while True:
            try:
                value, end = decoder.decode(self._text, self.at)
                if self._is_final or self._text[end - 1] in '}]"' or end + _MARGIN < len(self._text):
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_final or not self._may_vanish(error):
                    raise
                if len(self._text) - self.at > MAX_RECORD_BYTES:
                    if error.msg == TOO_MANY_DIGITS or self.current not in '{["':
                        raise
                    return self._skip_over_long()
            self._read_more()

    def _may_vanish(self, error: json.JSONDecodeError) -> bool:
        """Whether the decoder may only have come to the end of the window."""
        is_near_end = error.pos + _MARGIN >= len(self._text)
        return is_near_end or error.msg == TOO_MANY_DIGITS or error.msg.startswith("Unterminated string")

    def _skip_over_long(self) -> RowError:
        """Go to the end of a value that is too long to be held, and say how long it is.

        Raises:
            json.JSONDecodeError: it has no end.
        """
        place = self.place(self.at)
        depth, num_passed, is_in_string = 0, 0, False
        while depth or is_in_string or not num_passed:
            before = self.at
            self.at = (_TO_QUOTE if is_in_string else _TO_BRACKET).match(self._text, before).end()  # type: ignore[union-attr]
            mark = self.current
            if mark in ("", "\\"):  # the end of the window, perhaps between a backslash and what it escapes
                num_passed += self.at - before
                if not self._read_more():
                    self._text, self._start, self.at = "", place, 0
                    raise self.error(f"a record of over {MAX_RECORD_BYTES:,} characters has no end")
                continue
            self.at += 1
            num_passed += self.at - before
            if mark == '"':
                is_in_string = not is_in_string
            else:
                depth += 1 if mark in "{[" else -1
        return over_long(num_passed)

    def _read_more(self) -> bool:
        """Forget what lies before the position and read on; False at the end of the text."""
        self._start = self.place(self.at)
        self._line, self._counted = self._start[0], 0
        rest = self._text[self.at :]
        num_missing = MAX_RECORD_BYTES + 1 - len(rest)
        more = self._stream.read(max(self._num_characters, min(len(rest), num_missing)))
        self._text, self.at = rest + more, 0
        self._is_final = not more
        return bool(more)

"""Readers of JSON Lines and of JSON."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from component.data.json_records import RecordDecoder, read_json_line
from component.data.json_stream import scan_json
from component.data.records import BYTE_ORDER_MARK, MAX_RECORD_BYTES, Record, open_data, over_long, read_lines
from component.data.rows import Failure, RowError, Source

_NUM_CHECKED_LINES = 64


def read_json_lines(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read one object a line; blank lines are skipped and a byte-order mark is accepted.

    Args:
        path: the file.
        name: what the sources of its records call it.
    """
    decoder = RecordDecoder()
    with open_data(path) as file:
        for number, (line, num_bytes) in enumerate(read_lines(file), start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if not line.strip():
                continue
            source = Source(name, number)
            try:
                if num_bytes > MAX_RECORD_BYTES:
                    raise over_long(num_bytes, "bytes")
                yield Record(source, read_json_line(line.decode("utf-8").rstrip("\r\n"), decoder))
            except UnicodeDecodeError as error:
                yield Failure(source, f"invalid UTF-8: byte {error.start + 1} of the line")
            except RowError as error:
                yield Failure(source, str(error))


def read_json(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read an array of objects, or what is really JSON Lines.

    Raises:
        DataError: the array is broken, so that the rows after that place cannot be told apart.
    """
    if _is_json_lines(path):
        yield from read_json_lines(path, name)
        return
    # Bytes that are not UTF-8 become lone surrogates, which spoils only the record that they are in.
    with io.TextIOWrapper(open_data(path), "utf-8-sig", errors="surrogateescape", newline="") as stream:
        for line, value in scan_json(stream, name):
            source = Source(name, line)
            yield Failure(source, str(value)) if isinstance(value, RowError) else Record(source, value)


def _is_json_lines(path: Path) -> bool:
    """Whether one of the first two lines is an object of its own, which no line of an indented file can be."""
    with open_data(path) as file:
        if not file.read(4096).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
            return False
    with open_data(path) as file:
        lines = (
            line.removeprefix(BYTE_ORDER_MARK) for line, _ in itertools.islice(read_lines(file), _NUM_CHECKED_LINES)
        )
        return any(_is_object(line) for line in itertools.islice(filter(bytes.strip, lines), 2))


def _is_object(line: bytes) -> bool:
    try:
        read_json_line(line.decode("utf-8", errors="surrogateescape"), RecordDecoder())
    except RowError as error:
        return line.lstrip().startswith(b"{") and not str(error).startswith("bad JSON")
    return True

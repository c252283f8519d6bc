"""Readers of JSON Lines, JSON and text documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from component.data.json_records import RecordDecoder, read_json_line, scan_json
from component.data.records import BYTE_ORDER_MARK, MAX_RECORD_BYTES, Record, open_data
from component.data.rows import Failure, RowError, Source


def read_json_lines(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read one object a line; blank lines are skipped and a byte-order mark is accepted.

    Args:
        path: the file.
        name: what the sources of its records call it.
    """
    decoder = RecordDecoder()
    with open_data(path) as file:
        for number, (line, num_bytes) in enumerate(_lines(file), start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if not line.strip():
                continue
            source = Source(name, number)
            try:
                if num_bytes > MAX_RECORD_BYTES:
                    raise RowError(f"over-long record: {num_bytes:,} bytes, at most {MAX_RECORD_BYTES:,} are read")
                yield Record(source, read_json_line(line.decode("utf-8").rstrip("\r\n"), decoder))
            except UnicodeDecodeError as error:
                yield Failure(source, f"invalid UTF-8: byte {error.start + 1} of the line")
            except RowError as error:
                yield Failure(source, str(error))


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines with their size; of an over-long line only the beginning is kept, so that any file fits into memory."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        num_bytes, end = len(line), line
        while num_bytes > MAX_RECORD_BYTES and not end.endswith(b"\n") and (end := file.readline(2**20)):
            num_bytes += len(end)
        yield line, num_bytes


def read_json(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read an array of objects, or what is really JSON Lines.

    Raises:
        DataError: the array is broken, so that the rows after that place cannot be told apart.
    """
    with open_data(path) as file:
        content = file.read().removeprefix(BYTE_ORDER_MARK)
    if _is_json_lines(content):
        yield from read_json_lines(path, name)
        return
    # Bytes that are not UTF-8 become lone surrogates, which spoils only the record that they are in.
    for line, value in scan_json(content.decode("utf-8", errors="surrogateescape"), name):
        source = Source(name, line)
        yield Failure(source, str(value)) if isinstance(value, RowError) else Record(source, value)


def _is_json_lines(content: bytes) -> bool:
    """Whether one of the first two lines is an object of its own, which no line of an indented file can be."""
    start = content[:4096].lstrip()
    if not start.startswith(b"{"):
        return False
    lines = content.split(b"\n", 64)[:64]
    first_lines = [line for line in lines if line.strip()][:2]
    return any(_is_object(line) for line in first_lines)


def _is_object(line: bytes) -> bool:
    try:
        read_json_line(line.decode("utf-8", errors="surrogateescape"), RecordDecoder())
    except RowError as error:
        return line.lstrip().startswith(b"{") and not str(error).startswith("bad JSON")
    return True


def read_document(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read a text file as one document."""
    with open_data(path) as file:
        content = file.read().removeprefix(BYTE_ORDER_MARK)
    try:
        yield Record(Source(name, 1), {"text": content.decode("utf-8")})
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Failure(Source(name, line), f"invalid UTF-8: byte {error.start + 1} of the file")

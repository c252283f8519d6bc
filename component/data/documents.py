"""Reader of text files: one document a file, or several where it is too long for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from component.data.records import MAX_RECORD_BYTES, Record, open_data, over_long, skip_line
from component.data.rows import Failure, Source

#: How long the parts of a text over MAX_RECORD_BYTES become at most, except where a single line is longer.
PART_BYTES = 2**20

_IS_PART = (
    f"part of a text file over {MAX_RECORD_BYTES // 2**20} MiB, "
    f"which is divided between lines into documents of up to {PART_BYTES // 2**20} MiB"
)


def read_document(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read a text file as one document, or one longer than MAX_RECORD_BYTES as consecutive parts.

    Args:
        path: the file.
        name: what the sources of its records call it; their line is the first of a part.
    """
    with open_data(path) as file:
        content = file.read(MAX_RECORD_BYTES + 1)
    if len(content) <= MAX_RECORD_BYTES:
        yield _build_document(content, Source(name, 1), num_bytes_before=0)
        return
    del content
    with open_data(path) as file:
        yield from _read_parts(file, name)


def _read_parts(file: BinaryIO, name: str) -> Iterator[Record | Failure]:
    """Read a long text in parts, which end after a blank line where one is in their second half."""
    line, num_bytes_before = 1, 0
    rest = b""
    while rest := rest + file.read(PART_BYTES - len(rest)):
        source = Source(name, line)
        end = len(rest) if len(rest) < PART_BYTES else _find_end(rest)
        if not end:  # a single line that is longer than a part
            rest += file.readline(MAX_RECORD_BYTES + 1 - len(rest))
            end = len(rest)
        if end > MAX_RECORD_BYTES:
            end += skip_line(file, rest)
            yield Failure(source, str(over_long(end, "bytes")))
            num_newlines = 1
        else:
            yield _build_document(rest[:end], source, num_bytes_before=num_bytes_before, notices=(_IS_PART,))
            num_newlines = rest.count(b"\n", 0, end)
        line, num_bytes_before, rest = line + num_newlines, num_bytes_before + end, rest[end:]


def _find_end(text: bytes) -> int:
    """Where a part ends: after the last blank line of the second half, or else the last line; 0 if there is none."""
    half = len(text) // 2
    blank_lines = (text.rfind(blank, half) + len(blank) for blank in (b"\n\n", b"\n\r\n"))
    return max((end for end in blank_lines if end > half), default=text.rfind(b"\n") + 1)


def _build_document(
    content: bytes, source: Source, *, num_bytes_before: int, notices: tuple[str, ...] = ()
) -> Record | Failure:
    """A document of the text that begins after so many bytes of its file."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = source.line + content.count(b"\n", 0, error.start)
        place = num_bytes_before + error.start + 1
        return Failure(Source(source.file, line), f"invalid UTF-8: byte {place:,} of the file")
    return Record(source, {"text": text.removeprefix("\ufeff") if not num_bytes_before else text}, notices)

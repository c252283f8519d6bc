"""What a file holds by its first bytes, where that is not what its name says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from component.config.errors import DataError
from component.data.records import data_suffix, open_data

_NUM_BYTES = 64


@dataclass(frozen=True)
class _Mark:
    """How files of a kind begin that cannot be read under another name.

    Attributes:
        start: their first bytes, after blanks.
        what: what they are, in words.
        fix: what to do.
        suffixes: names under which they are what they should be.
    """

    start: bytes
    what: str
    fix: str
    suffixes: tuple[str, ...] = ()


_UTF8 = "convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8"
_WEB_PAGE = "a web page", "download the file itself, not the page about it", (".html", ".vue", ".md", ".php", ".txt")

_MARKS = (
    _Mark(b"\xff\xfe", "text in UTF-16", _UTF8),
    _Mark(b"\xfe\xff", "text in UTF-16", _UTF8),
    _Mark(b"\x1f\x8b", "compressed with gzip", "add .gz to its name"),
    _Mark(b"\x28\xb5\x2f\xfd", "compressed with zstd", "add .zst to its name"),
    _Mark(b"\xfd7zXZ\x00", "compressed with xz", "decompress it"),
    _Mark(b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the sheet as .csv"),
    _Mark(b"PAR1\x15", "a parquet file", "give it the suffix .parquet", (".parquet",)),
    _Mark(b"ARROW1\x00\x00", "an arrow file", "give it the suffix .arrow", (".arrow",)),
    _Mark(b"version https://git-lfs", "a pointer of Git LFS that stands for the data", "run git lfs pull"),
    _Mark(b"<!DOCTYPE html", *_WEB_PAGE),
    _Mark(b"<!doctype html", *_WEB_PAGE),
    _Mark(b"<html", *_WEB_PAGE),
)


def check_contents(path: Path, name: str) -> None:
    """Check that a file does not begin as one of another kind, whose every line would be a bad row.

    Args:
        path: the file, which may be compressed.
        name: what messages call it.

    Raises:
        DataError: it does.
    """
    with open_data(path) as file:
        start = file.read(_NUM_BYTES).lstrip(b" \t\r\n")
    for mark in _MARKS:
        if start.startswith(mark.start) and data_suffix(path) not in mark.suffixes:
            raise DataError(f"{name}: is {mark.what}; {mark.fix}")

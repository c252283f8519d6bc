"""Readers of CSV and TSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from component.config.errors import DataError
from component.data.records import MAX_RECORD_BYTES, Record, check_column_names, open_data, over_long
from component.data.rows import Failure, RowError, Source


def read_csv(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read a table whose first line names the columns; blank lines are skipped, and every cell is text.

    Args:
        path: the file.
        name: what the sources of its records call it; their line is the one on which a record begins.

    Raises:
        DataError: two columns have one name, or a quote is never closed.
    """
    return _read_delimited(path, name, ",")


def read_tsv(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read a table whose cells are divided by tabs; see `read_csv`."""
    return _read_delimited(path, name, "\t")


def _read_delimited(path: Path, name: str, delimiter: str) -> Iterator[Record | Failure]:
    csv.field_size_limit(MAX_RECORD_BYTES)  # of the whole process, and so never set back while another file is read
    # Bytes that are not UTF-8 become lone surrogates, which spoils only the record that they are in.
    with io.TextIOWrapper(open_data(path), "utf-8-sig", errors="surrogateescape", newline="") as file:
        header: list[str] | None = None
        for line, cells in _numbered(_Lines(file), delimiter, name):
            if header is None:
                header = _check_header(cells, name, line)
                continue
            source = Source(name, line)
            try:
                yield Record(source, _build_record(header, cells))
            except RowError as error:
                yield Failure(source, str(error))


class _Lines:
    """Lines of a text for a csv reader, none of which fills the memory.

    Attributes:
        number: how many lines have been read.
    """

    def __init__(self, file: TextIO) -> None:
        self.number = 0
        self._file = file

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """The next line.

        Raises:
            RowError: it is too long; it is passed over.
        """
        line = self._file.readline(MAX_RECORD_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) <= MAX_RECORD_BYTES:
            return line
        size = len(line)
        while not line.endswith(("\n", "\r")) and (line := self._file.readline(2**20)):
            size += len(line)
        raise over_long(size)


def _numbered(lines: _Lines, delimiter: str, name: str) -> Iterator[tuple[int, list[str] | RowError]]:
    """Records that are not blank, each with the line on which it begins."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except RowError as error:
            yield line, error
            continue
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(
                    f"{name}:{line}: bad table: a quote is never closed; no row after it can be told apart: close it"
                ) from None
            if "field larger than field limit" in str(error):
                error = f"a cell of over {MAX_RECORD_BYTES:,} characters, or a quote that is never closed"
            yield line, RowError(f"bad table: {error}")
            continue
        if cells:
            yield line, cells


def _check_header(cells: list[str] | RowError, name: str, line: int) -> list[str]:
    """The names of the columns."""
    if isinstance(cells, RowError):
        raise DataError(f"{name}:{line}: {cells}; correct the line that names the columns")
    check_column_names(cells, f"{name}:{line}")
    return cells


def _build_record(header: list[str], cells: list[str] | RowError) -> dict[str, str]:
    """A record of its cells.

    Raises:
        RowError: they cannot be told apart, are too few or too many, or hold bytes that are no text.
    """
    if isinstance(cells, RowError):
        raise cells
    if len(cells) != len(header):
        raise RowError(f"bad table: {len(cells)} cells, the table has {len(header)} columns")
    if any(not cell.isascii() and not _is_text(cell) for cell in cells):
        raise RowError("invalid UTF-8")
    return dict(zip(header, cells, strict=True))


def _is_text(cell: str) -> bool:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

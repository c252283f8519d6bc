"""From files to rows: detect the format, rename columns, parse; what cannot be used comes as a failure."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.formats.detect import NUM_ROWS, check_format, detect_format
from component.data.formats.interface import keys_of, load_format
from component.data.records import Record
from component.data.rows import Failure, Row, RowError
from component.data.sources import DataFile, read_records

_Item = Record | Failure


@dataclass(frozen=True)
class FileRows:
    """The rows of a file, or why a record is none, and the format they have; None if no row can be read."""

    data_format: str | None
    rows: Iterator[Row | Failure]


def read_rows(file: DataFile, data: DataSection, row_kind: str, *, skip: int = 0) -> FileRows:
    """Read the rows of a file.

    Args:
        skip: number of records at the beginning that are left out.

    Raises:
        DataError: the rows are not of the format that the config names or of none that the task can use, or
            `columns` names something that is not there.
    """
    records = read_records(file)
    first = list(itertools.islice(records, NUM_ROWS))
    # Broken rows at the start are no reason to give up on the file: look at the first that can be read.
    while not any(isinstance(item, Record) for item in first[-NUM_ROWS:]) and (item := next(records, None)) is not None:
        first.append(item)
    written = [item.value for item in first if isinstance(item, Record)]
    _check_columns_exist(data.columns, written, file.name)
    values = [value for value in map(_renamer(data.columns), written) if not isinstance(value, RowError)]
    name: str | None = data.data_format
    if data.data_format != "auto":
        check_format(data.data_format, values, row_kind, file.name)
    else:
        name = detect_format(values, row_kind, file.name) if values else None
    if name is not None:
        _check_columns_are_keys(data.columns, name)
    return FileRows(name, _parse(itertools.islice(itertools.chain(first, records), skip, None), name, data.columns))


def _parse(records: Iterable[_Item], name: str | None, columns: Mapping[str, str]) -> Iterator[Row | Failure]:
    """Make rows of records."""
    row_format = None if name is None else load_format(name)
    rename = _renamer(columns)
    for record in records:
        if isinstance(record, Failure):
            yield record
            continue
        value = rename(record.value)
        try:
            if isinstance(value, RowError):
                raise value
            assert row_format is not None
            row = row_format.parse(value, record.source)
        except RowError as error:
            yield Failure(record.source, str(error))
            continue
        if record.notices:
            row = replace(row, notices=(*record.notices, *row.notices))
        yield row


def _renamer(columns: Mapping[str, str]) -> Any:
    """What gives a record the names that its format reads, or says why it cannot."""

    def rename(record: Mapping[str, Any]) -> Mapping[str, Any] | RowError:
        """The record under the names that `columns` gives."""
        renamed: dict[str, Any] = {}
        for written, value in record.items():
            key = columns.get(written, written)
            if key in renamed:
                return RowError(f"two columns are {key}: columns maps another one to it")
            renamed[key] = value
        return renamed

    return rename if columns else lambda record: record


def _check_columns_exist(columns: Mapping[str, str], records: Sequence[Mapping[str, Any]], file: str) -> None:
    """Check that some of the first rows has each column that the config renames."""
    found = list(dict.fromkeys(key for record in records for key in record))
    for written in columns:
        if records and written not in found:
            near = difflib.get_close_matches(written, found, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the rows have {', '.join(found[:8])}"
            raise DataError(f"{file}: columns: there is no column {written!r} in the first rows; {hint}")


def _check_columns_are_keys(columns: Mapping[str, str], name: str) -> None:
    """Check that a format reads what the config renames columns to."""
    keys = keys_of(load_format(name))
    for written, key in columns.items():
        if keys and key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it reads {', '.join(keys)}"
            raise DataError(f"columns: {written!r} is mapped to {key!r}, which {name} does not read; {hint}")

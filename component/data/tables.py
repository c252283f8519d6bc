"""Readers of tables: CSV, TSV, parquet and arrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import DataError
from component.data.records import COMPRESSIONS, MAX_RECORD_BYTES, Record, open_data
from component.data.rows import Failure, RowError, Source

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_BATCH_SIZE = 1024
_FILE_FORM = b"ARROW1"


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
    limit = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        # Bytes that are not UTF-8 become lone surrogates, which spoils only the record that they are in.
        with io.TextIOWrapper(open_data(path), "utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header: list[str] | None = None
            for line, cells in _numbered(reader, name):
                if header is None:
                    header = _check_header(cells, name, line)
                    continue
                source = Source(name, line)
                try:
                    yield Record(source, _build_record(header, cells))
                except RowError as error:
                    yield Failure(source, str(error))
    finally:
        csv.field_size_limit(limit)


def _numbered(reader: Any, name: str) -> Iterator[tuple[int, list[str] | RowError]]:
    """Records that are not blank, each with the line on which it begins."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(
                    f"{name}:{line}: bad table: a quote is never closed; no row after it can be told apart: close it"
                ) from None
            yield line, RowError(f"bad table: {error}")
            continue
        if cells:
            yield line, cells


def _check_header(cells: list[str] | RowError, name: str, line: int) -> list[str]:
    """The names of the columns."""
    if isinstance(cells, RowError):
        raise DataError(f"{name}:{line}: {cells}; correct the line that names the columns")
    repeated = {cell for cell in cells if cells.count(cell) > 1}
    if repeated or "" in cells:
        what = f"two columns are named {min(repeated)!r}" if repeated - {""} else "a column has no name"
        raise DataError(f"{name}:{line}: bad table: {what}; give each column a name of its own")
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


def read_parquet(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read a parquet file; the line of a record is its number, from 1.

    Raises:
        DataError: it is no parquet file, or a damaged one.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(_whole(path), memory_map=True)
        yield from _read_batches(file.iter_batches(batch_size=_BATCH_SIZE), name)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(name, "parquet", error) from None


def read_arrow(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read an arrow file, in the stream form that the datasets library writes or in the file form.

    Raises:
        DataError: it is neither, or damaged.
    """
    import pyarrow

    try:
        with open_data(path) as file:
            is_file_form = file.read(len(_FILE_FORM)) == _FILE_FORM
        source = pyarrow.memory_map(str(path)) if _is_plain(path) else _whole(path)
        with source:
            batches: Iterable[RecordBatch] = pyarrow.ipc.open_stream(source) if not is_file_form else ()
            if is_file_form:
                reader = pyarrow.ipc.open_file(source)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            yield from _read_batches(batches, name)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(name, "arrow", error) from None


def _read_batches(batches: Iterable[RecordBatch], name: str) -> Iterator[Record | Failure]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_SIZE):
            for value in _to_values(batch.slice(start, _BATCH_SIZE)):
                number += 1
                source = Source(name, number)
                if isinstance(value, RowError):
                    yield Failure(source, str(value))
                else:
                    yield Record(source, {key: _without_nulls(item) for key, item in value.items()})


def _to_values(batch: RecordBatch) -> list[dict[str, Any] | RowError]:
    """The rows of a batch; where one holds text that is no UTF-8, each is read by itself."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [RowError("invalid UTF-8")]
        return [value for row in range(batch.num_rows) for value in _to_values(batch.slice(row, 1))]


def _without_nulls(value: Any) -> Any:
    """A nested value without the nulls that a table puts where a JSON object has no such key."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _is_plain(path: Path) -> bool:
    return path.suffix.lower() not in COMPRESSIONS


def _whole(path: Path) -> Any:
    """What pyarrow can read at any place: the file itself, or its decompressed content."""
    if _is_plain(path):
        return str(path)
    with open_data(path) as file:
        return io.BytesIO(file.read())


def _damaged(name: str, kind: str, error: Exception) -> DataError:
    what = " ".join(str(error).split())[:200]
    return DataError(f"{name}: is no {kind} file, or a damaged one ({what}); write it again")

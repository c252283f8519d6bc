"""Readers of tables: CSV, TSV, parquet and arrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from component.config.errors import DataError
from component.data.records import COMPRESSIONS, MAX_RECORD_BYTES, Record, open_data, over_long
from component.data.rows import Failure, RowError, Source

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_MAX_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
#: A compressed file that is read at any place is decompressed in memory up to this size.
_MAX_HELD_BYTES = 512 * 2**20
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
    _check_names(cells, f"{name}:{line}")
    return cells


def _check_names(names: Sequence[str], place: str) -> None:
    """Check that each column of a table has a name of its own."""
    if len(set(names)) == len(names) and "" not in names:
        return
    repeated = {name for name in names if names.count(name) > 1} - {""}
    what = f"two columns are named {min(repeated)!r}" if repeated else "a column has no name"
    raise DataError(f"{place}: bad table: {what}; give each column a name of its own")


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
        # Neither mapped nor buffered ahead, a file costs one buffer a column, however long its row groups are.
        with parquet.ParquetFile(_seekable(path, name), buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
            row_bytes = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
            yield from _read_batches(file.iter_batches(batch_size=_num_rows_at_a_time(row_bytes)), name)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(name, "parquet", error) from None


def read_arrow(path: Path, name: str) -> Iterator[Record | Failure]:
    """Read an arrow file, in the stream form that the datasets library writes or in the file form.

    It is not mapped, since a mapped file that somebody cuts short ends the process; what is held is one batch of it.

    Raises:
        DataError: it is neither, or damaged.
    """
    import pyarrow

    try:
        with open_data(path) as file:
            is_file_form = file.read(len(_FILE_FORM)) == _FILE_FORM
        if is_file_form:
            with pyarrow.ipc.open_file(_seekable(path, name)) as reader:
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
                yield from _read_batches(batches, name)
        else:
            with open_data(path) as file, pyarrow.ipc.open_stream(file) as stream:
                yield from _read_batches(stream, name)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(name, "arrow", error) from None


def _read_batches(batches: Iterable[RecordBatch], name: str) -> Iterator[Record | Failure]:
    number = 0
    for batch in batches:
        _check_names(batch.schema.names, name)
        num_rows = _num_rows_at_a_time(batch.nbytes // max(batch.num_rows, 1))
        for start in range(0, batch.num_rows, num_rows):
            for value in _to_values(batch.slice(start, num_rows)):
                number += 1
                source = Source(name, number)
                if isinstance(value, RowError):
                    yield Failure(source, str(value))
                else:
                    yield Record(source, {key: _without_nulls(item) for key, item in value.items()})


def _num_rows_at_a_time(row_bytes: int) -> int:
    """How many rows of that size are made Python objects together."""
    return max(1, min(_MAX_BATCH_ROWS, MAX_RECORD_BYTES // max(row_bytes, 1)))


def _to_values(batch: RecordBatch) -> list[dict[str, Any] | RowError]:
    """The rows of a batch; where one is too long or holds text that is no UTF-8, each is read by itself."""
    if batch.num_rows == 1 and batch.nbytes > MAX_RECORD_BYTES:
        return [over_long(batch.nbytes, "bytes")]
    try:
        if batch.nbytes <= MAX_RECORD_BYTES:
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


def _seekable(path: Path, name: str) -> Any:
    """What pyarrow can read at any place: the file itself, or its decompressed content.

    Raises:
        DataError: that is too long to be held in memory.
    """
    if path.suffix.lower() not in COMPRESSIONS:
        return str(path)
    with open_data(path) as file:
        content = file.read(_MAX_HELD_BYTES + 1)
    if len(content) > _MAX_HELD_BYTES:
        raise DataError(f"{name}: is over {_MAX_HELD_BYTES:,} bytes when decompressed, too long to hold; decompress it")
    return io.BytesIO(content)


def _damaged(name: str, kind: str, error: Exception) -> DataError:
    what = " ".join(str(error).split())[:200]
    return DataError(f"{name}: is no {kind} file, or a damaged one ({what}); write it again")

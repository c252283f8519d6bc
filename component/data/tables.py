"""Readers of parquet and arrow."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import DataError
from component.data.records import COMPRESSIONS, MAX_RECORD_BYTES, Record, check_column_names, open_data, over_long
from component.data.rows import Failure, RowError, Source

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch

_MAX_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
#: A compressed file that is read at any place is decompressed in memory up to this size.
_MAX_HELD_BYTES = 512 * 2**20
_FILE_FORM = b"ARROW1"


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
    except (pyarrow.ArrowException, UnicodeDecodeError, MemoryError, OSError) as error:
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
    except (pyarrow.ArrowException, UnicodeDecodeError, MemoryError, OSError) as error:
        raise _damaged(name, "arrow", error) from None


def _read_batches(batches: Iterable[RecordBatch], name: str) -> Iterator[Record | Failure]:
    number = 0
    for batch in batches:
        check_column_names(batch.schema.names, name)
        _check_structure(batch)
        num_rows = _num_rows_at_a_time(batch.nbytes // max(batch.num_rows, 1))
        for start in range(0, batch.num_rows, num_rows):
            for value in _to_values(batch.slice(start, num_rows)):
                number += 1
                source = Source(name, number)
                if isinstance(value, RowError):
                    yield Failure(source, str(value))
                else:
                    yield Record(source, {key: _without_nulls(item) for key, item in value.items()})


def _check_structure(batch: RecordBatch) -> None:
    """Check that all lengths and offsets of a batch fit its buffers; a read beyond them would end the process.

    Raises:
        pyarrow.ArrowInvalid: they do not. Text that is no UTF-8 is none of this: it spoils only its row.
    """
    import pyarrow

    if batch.num_rows < 0:
        raise pyarrow.ArrowInvalid("a negative number of rows")
    batch.validate()
    for column in batch.columns:
        bare = _without_text(column.type)
        (column if bare == column.type else column.view(bare)).validate(full=True)


def _without_text(kind: DataType) -> DataType:
    """A type with bytes where it has text, since looking at text ends with the first that is no UTF-8."""
    import pyarrow
    from pyarrow import types

    if types.is_string(kind) or types.is_large_string(kind):
        return pyarrow.binary() if types.is_string(kind) else pyarrow.large_binary()
    if types.is_list(kind) or types.is_large_list(kind):
        build = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return build(kind.value_field.with_type(_without_text(kind.value_type)))
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_without_text(field.type)) for field in kind])
    return kind


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
    what = " ".join(str(error).split())[:200] or "it claims to hold more than the memory"
    return DataError(f"{name}: is no {kind} file, or a damaged one ({what}); write it again")

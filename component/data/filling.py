"""From the files of an entry of the config to its chunks in the cache: read, encode ahead, count, write.

What was written before stays: the records of these chunks are read again, for their place, and neither parsed nor
encoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from component.config.schema import DataSection
from component.data.cache_entry import CacheEntry, StoredRows
from component.data.chunks import ChunkBuilder
from component.data.encoders.interface import RowEncoder
from component.data.progress import RowProgress, estimate_rows
from component.data.reading import read_rows
from component.data.rows import EncodedRow, Failure, Row, RowError
from component.data.sources import DataFile, check_unchanged
from component.data.tally import Dropped, Tally

#: Rows that are encoded at once, and the characters of their texts at which there are enough.
_BATCH_ROWS = 1000
_BATCH_CHARACTERS = 2**22
#: Batches that are encoded at once: while the tokenizer, which needs no Python, works on one, the next is rendered.
_NUM_THREADS = 2
#: Batches that are being encoded or wait for it; more would only cost memory.
_NUM_WAITING = 3
#: Records of a chunk, and tokens at which it is full before: what a run that is killed may lose, and what it holds in
#: memory.
CHUNK_RECORDS = 10_000
_CHUNK_TOKENS = 2**23

#: A record: the index of its file, the format of that file, and what was read.
_Item = tuple[int, str | None, Row | Failure]


@dataclass(frozen=True)
class EntryFiles:
    """What is read for one entry of the config.

    Attributes:
        name: as the config writes it.
        files: its files, in order.
        limit: how many usable rows are read at most, None for all.
    """

    name: str
    files: tuple[DataFile, ...]
    limit: int | None


@dataclass
class _Batch:
    """Records in the order of the files, and the rows among them."""

    items: list[_Item] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def fill_entry(
    entry: CacheEntry, stored: StoredRows, source: EntryFiles, data: DataSection, encoder: RowEncoder
) -> tuple[tuple[Path, ...], Tally]:
    """Write the chunks that are missing.

    Args:
        stored: the chunks that are there.
        data: the config's data section.

    Returns:
        The tables of all chunks, and the counts of their rows.

    Raises:
        UserError: the cache cannot be written.
        DataError: the files cannot be read, or a row is at fault with `truncation: error`.
    """
    entry.keep(len(stored.paths))
    paths, total = list(stored.paths), Tally()
    total.add(stored.tally)
    builder, tally = ChunkBuilder(), Tally()
    items = _read(source.files, data, encoder.row_kind, stored.tally)
    estimate = estimate_rows([file.path for file in source.files], source.limit)
    with (
        RowProgress(source.name, done=total.rows_read, total=estimate) as progress,
        closing(_encode(items, encoder, source.limit, stored.tally)) as batches,
    ):
        for batch, encoded in batches:
            first_row = total.rows_used + tally.rows_used
            _count(batch, encoded, builder, tally, first_row=first_row, reads_columns=encoder.row_kind == "prompt")
            progress.advance(len(batch.items))
            if tally.rows_read >= CHUNK_RECORDS or builder.num_tokens >= _CHUNK_TOKENS:
                paths.append(_write(entry, len(paths), builder, tally, source.files))
                total.add(tally)
                builder, tally = ChunkBuilder(), Tally()
    if tally.rows_read:
        paths.append(_write(entry, len(paths), builder, tally, source.files))
        total.add(tally)
    return tuple(paths), total


def _read(files: Sequence[DataFile], data: DataSection, row_kind: str, done: Tally) -> Iterator[_Item]:
    """All that was not read before: the index of the file, its format, and a row or why it is none."""
    last = max(done.files, default=0)
    for index, file in enumerate(files[last:], start=last):
        num_done = done.files[index].rows_read if index in done.files else 0
        read = read_rows(file, data, row_kind, skip=num_done)
        for item in read.rows:
            yield index, read.data_format, item


def _encode(
    items: Iterator[_Item], encoder: RowEncoder, limit: int | None, done: Tally
) -> Iterator[tuple[_Batch, list[EncodedRow | RowError]]]:
    """Encode in other threads, batch by batch and in order, while the next rows are read and the last are written.

    No row is read that is not needed to reach the limit.
    """
    waiting: deque[tuple[_Batch, Future[list[EncodedRow | RowError]]]] = deque()
    num_used, num_waiting = done.rows_used, 0  # rows
    with ThreadPoolExecutor(_NUM_THREADS, "encode") as pool:
        while True:
            wanted = _BATCH_ROWS
            if limit is not None:
                wanted = min(wanted, limit - num_used - num_waiting)
            batch = _take(items, wanted)
            if batch.items:
                waiting.append((batch, pool.submit(encoder.encode_rows, batch.rows)))
                num_waiting += len(batch.rows)
            elif not waiting:
                return
            if len(waiting) > _NUM_WAITING or not batch.items:
                first, future = waiting.popleft()
                encoded = future.result()
                num_waiting -= len(first.rows)
                num_used += sum(isinstance(item, EncodedRow) for item in encoded)
                yield first, encoded


def _take(items: Iterator[_Item], num_rows: int) -> _Batch:
    """The next records, up to a number of rows that can be parsed; without any where there are no more."""
    batch, num_characters = _Batch(), 0
    while len(batch.rows) < num_rows and len(batch.items) < CHUNK_RECORDS and num_characters < _BATCH_CHARACTERS:
        item = next(items, None)
        if item is None:
            break
        batch.items.append(item)
        if isinstance(item[2], Row):
            batch.rows.append(item[2])
            num_characters += _num_characters(item[2])
    return batch


def _num_characters(row: Row) -> int:
    """Characters of the texts of a row."""
    count = len(row.text or "") + sum(len(segment.text) for segment in row.segments)
    for part in (row.messages, row.chosen or (), row.rejected or ()):
        count += len(part) if isinstance(part, str) else sum(len(message.content) for message in part)
    return count


def _count(
    batch: _Batch,
    encoded: Sequence[EncodedRow | RowError],
    builder: ChunkBuilder,
    tally: Tally,
    *,
    first_row: int,
    reads_columns: bool,
) -> None:
    """Count the records of a batch and add the samples of those that are used to the chunk."""
    results = iter(encoded)
    row_number = first_row
    for file, data_format, item in batch.items:
        tally.read(file, data_format)
        if isinstance(item, Failure):
            tally.drop(Dropped(file, item.source.line, item.reason))
            continue
        tally.parsed(item, reads_columns=reads_columns)
        result = next(results)
        if isinstance(result, RowError):
            tally.drop(Dropped(file, item.source.line, str(result)))
            continue
        tally.use(file, result)
        builder.add(
            result.samples,
            row=row_number,
            file=file,
            num_tokens_cut=result.num_tokens_cut,
            is_without_stop=result.is_without_stop,
        )
        row_number += 1


def _write(entry: CacheEntry, number: int, builder: ChunkBuilder, tally: Tally, files: Sequence[DataFile]) -> Path:
    """Write a chunk.

    Raises:
        DataError: a file of its rows is no longer the one whose hash is in the key of the entry.
    """
    for index in tally.files:
        check_unchanged(files[index])
    tally.num_samples, tally.num_tokens = builder.num_samples, builder.num_tokens
    return entry.write_chunk(number, builder.build(), tally)

"""The prepared samples of a run as a sequence: each is read from its chunk when it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from component.data.chunks import Chunk, ChunkBuilder, Sample


class Samples(Sequence[Sample]):
    """Samples of chunks, all of them or a choice, in any order.

    What is held in memory is a few numbers a sample, never its tokens. It can be pickled: another process maps the
    files by itself.

    Args:
        chunks: where the samples are.
        positions: of the samples, counted through all chunks; None takes all.
        rows: the number of the row of each of them, from 0 and ascending.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        positions: NDArray[np.int64] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._chunks = tuple(chunks)
        self._starts = (0, *accumulate(len(chunk) for chunk in self._chunks))
        self._positions = np.arange(self._starts[-1]) if positions is None else positions
        self._rows = rows
        if rows is None:
            self._rows = np.cumsum(self._gather("begins_row"), dtype=np.int64) - 1
        assert len(self._rows) == len(self._positions)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """Samples held in memory, each of a row of its own."""
        builder, files = ChunkBuilder(), dict[str, int]()
        for row, sample in enumerate(samples):
            builder.add((sample,), row=row, file=files.setdefault(sample.source.file, len(files)))
        return cls([Chunk(builder.build(), tuple(files))])

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """The samples of some parts, one part after the other; rows are counted through."""
        chunks = [chunk for part in parts for chunk in part._chunks]
        positions, rows, num_positions, num_rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0, 0
        for part in parts:
            positions.append(part._positions + num_positions)
            rows.append(part.rows + num_rows)
            num_positions += part._starts[-1]
            num_rows += part.num_rows
        return Samples(chunks, np.concatenate(positions), np.concatenate(rows))

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            rows = self.rows[index]
            return Samples(self._chunks, self._positions[index], np.cumsum(np.diff(rows, prepend=rows[:1]) != 0))
        position = int(self._positions[index])
        chunk = bisect_right(self._starts, position) - 1
        return self._chunks[chunk].sample(position - self._starts[chunk])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Samples):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Samples({len(self):,} samples of {self.num_rows:,} rows in {len(self._chunks):,} chunks)"

    def take_rows(self, numbers: Sequence[int] | NDArray[np.int64]) -> Samples:
        """The samples of some rows, in this order; the first of these rows becomes row 0.

        Args:
            numbers: of rows, as `rows` gives them.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        starts, ends = self._row_starts[wanted], self._row_starts[wanted + 1]
        counts = ends - starts
        skipped = np.cumsum(counts) - counts
        indices = np.repeat(starts - skipped, counts) + np.arange(counts.sum())
        return Samples(self._chunks, self._positions[indices], np.repeat(np.arange(len(wanted)), counts))

    @property
    def rows(self) -> NDArray[np.int64]:
        """The number of the row that each sample belongs to, from 0 and ascending; a split row made several samples."""
        return self._rows

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._rows[-1]) + 1 if len(self._rows) else 0

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample; of a pair, those of the longer answer."""
        return self._gather("lengths")

    @cached_property
    def num_supervised_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sample that the loss counts; of a pair, those of both answers."""
        return self._gather("num_supervised_tokens")

    @cached_property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sample; of a pair, those of both answers."""
        return self._gather("num_tokens")

    def of_rows(self, name: str) -> NDArray[Any]:
        """What is known of each row as a whole.

        Args:
            name: "num_tokens_cut", "is_without_stop", or "digest", which is equal where two rows are, token for token.
        """
        parts = [chunk.column(name) for chunk in self._chunks]
        return _join(parts)[self._positions[self._row_starts[:-1]]]

    @cached_property
    def _row_starts(self) -> NDArray[np.int64]:
        """Index of the first sample of each row, and the number of samples at the end."""
        begins = np.flatnonzero(np.diff(self._rows, prepend=-1))
        return np.append(begins, len(self._rows))

    def _gather(self, name: str) -> NDArray[Any]:
        return _join([getattr(chunk, name) for chunk in self._chunks])[self._positions]

    def __getstate__(self) -> dict[str, Any]:
        names = ("_chunks", "_starts", "_positions", "_rows")
        return {name: self.__dict__[name] for name in names}


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)

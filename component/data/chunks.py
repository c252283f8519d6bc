"""Chunks of prepared samples: tables in Arrow's file form, which are mapped into memory and never loaded whole."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from component.data.rows import Prepared, PreparedPair, Source

#: A pair is two neighbouring rows of the table, chosen first. What is known of a row of the data as a whole stands at
#: the first of its samples: `num_tokens_cut`, `is_without_stop`, `digest`.
SCHEMA = pyarrow.schema(
    [
        ("input_ids", pyarrow.large_list(pyarrow.int32())),
        ("spans", pyarrow.large_list(pyarrow.int32())),  # start, end, start, end, ...
        ("row", pyarrow.int64()),
        ("file", pyarrow.int32()),
        ("line", pyarrow.int64()),
        ("num_tokens_cut", pyarrow.int64()),
        ("is_without_stop", pyarrow.bool_()),
        ("digest", pyarrow.uint64()),
        ("label", pyarrow.bool_()),
        ("columns", pyarrow.large_string()),  # JSON
        ("text", pyarrow.large_string()),
    ]
)
_PAIRED = b"paired"

Sample = Prepared | PreparedPair


class ChunkBuilder:
    """Collects the samples of some rows and makes a table of them.

    Attributes:
        num_tokens: collected so far.
        num_samples: collected so far.
    """

    def __init__(self) -> None:
        self.num_tokens = self.num_samples = 0
        self._is_paired = False
        self._ids, self._id_offsets = bytearray(), array("q", [0])
        self._spans, self._span_offsets = array("i"), array("q", [0])
        self._numbers: dict[str, list[int]] = {name: [] for name in ("row", "file", "line", "num_tokens_cut", "digest")}
        self._others: dict[str, list[Any]] = {name: [] for name in ("is_without_stop", "label", "columns", "text")}

    def add(
        self,
        samples: Sequence[Sample],
        *,
        row: int,
        file: int,
        num_tokens_cut: int = 0,
        is_without_stop: bool = False,
    ) -> None:
        """Add the samples that one row made.

        Args:
            samples: at least one.
            row: number of the row, another one than that of the row before.
            file: index of the file that it stands in.
            num_tokens_cut: tokens that truncation cut off the row.
            is_without_stop: whether its last answer lost its stop token with them.
        """
        digest = hashlib.blake2b(digest_size=8)
        first = len(self._numbers["row"])
        for sample in samples:
            self._is_paired = isinstance(sample, PreparedPair)
            for part in (sample.chosen, sample.rejected) if isinstance(sample, PreparedPair) else (sample,):
                ids = array("i", part.input_ids).tobytes()
                digest.update(len(ids).to_bytes(8, "little") + ids)
                self._add_part(part, ids, row, file)
        self._numbers["num_tokens_cut"][first] = num_tokens_cut
        self._numbers["digest"][first] = int.from_bytes(digest.digest(), "little")
        self._others["is_without_stop"][first] = is_without_stop
        self.num_samples += len(samples)

    def _add_part(self, part: Prepared, ids: bytes, row: int, file: int) -> None:
        self._ids += ids
        self.num_tokens += len(part.input_ids)
        self._id_offsets.append(self.num_tokens)
        for span in part.spans:
            self._spans.extend(span)
        self._span_offsets.append(len(self._spans))
        place = {"row": row, "file": file, "line": part.source.line, "num_tokens_cut": 0, "digest": 0}
        for name, number in place.items():
            self._numbers[name].append(number)
        self._others["is_without_stop"].append(False)
        self._others["label"].append(part.label)
        # What JSON has no word for, such as a date of a parquet file, is kept as its text.
        self._others["columns"].append(json.dumps(part.columns, default=str) if part.columns else None)
        self._others["text"].append(part.text)

    def build(self) -> pyarrow.RecordBatch:
        """The table of all that was added."""
        ids = pyarrow.array(np.frombuffer(self._ids, dtype=np.int32))
        spans = pyarrow.array(np.frombuffer(self._spans, dtype=np.int32) if self._spans else np.empty(0, np.int32))
        values: dict[str, Any] = {
            "input_ids": pyarrow.LargeListArray.from_arrays(np.frombuffer(self._id_offsets, dtype=np.int64), ids),
            "spans": pyarrow.LargeListArray.from_arrays(np.frombuffer(self._span_offsets, dtype=np.int64), spans),
            **self._numbers,
            **self._others,
        }
        columns = [pyarrow.array(values[field.name], type=field.type) for field in SCHEMA]
        metadata = {_PAIRED: b"1" if self._is_paired else b"0"}
        return pyarrow.RecordBatch.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))


def to_bytes(table: pyarrow.RecordBatch) -> pyarrow.Buffer:
    """The content of an Arrow file with this table."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    return sink.getvalue()


class Chunk:
    """The samples of one table; from a file, only what is looked at is read.

    Args:
        source: the file, or a table in memory.
        file_names: what the sources of its samples are called, by the index that the table holds.
        owner: kept alive as long as this chunk; what keeps the file from being removed.
    """

    def __init__(self, source: Path | pyarrow.RecordBatch, file_names: Sequence[str], owner: object = None) -> None:
        self._source = source
        self._file_names = tuple(file_names)
        self._owner = owner

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the file by itself.
        return Chunk, (self._source, self._file_names)

    @cached_property
    def _table(self) -> pyarrow.RecordBatch:
        if isinstance(self._source, pyarrow.RecordBatch):
            return self._source
        # Closing the file drops its descriptor; the map lives as long as the arrays.
        with pyarrow.memory_map(str(self._source)) as file:
            return pyarrow.ipc.open_file(file).get_batch(0)

    @cached_property
    def is_paired(self) -> bool:
        """Whether each sample is a pair."""
        return self._table.schema.metadata[_PAIRED] == b"1"

    @property
    def _parts(self) -> int:
        return 2 if self.is_paired else 1

    def __len__(self) -> int:
        """Number of samples."""
        return self._table.num_rows // self._parts

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers, one of each sample; of a pair, that of the chosen answer."""
        if not len(self):
            return np.empty(0, SCHEMA.field(name).type.to_pandas_dtype())
        return self._table.column(name).to_numpy(zero_copy_only=False)[:: self._parts]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample; of a pair, those of the longer answer."""
        return np.diff(self._ids[1]).reshape(-1, self._parts).max(axis=1, initial=0)

    @cached_property
    def num_supervised_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sample that the loss counts, which the first one never is; of a pair, those of both."""
        values, offsets = self._spans
        counted = values[1::2].astype(np.int64) - np.maximum(values[0::2], 1)
        so_far = np.concatenate(([0], np.cumsum(counted)))
        return np.diff(so_far[offsets // 2]).reshape(-1, self._parts).sum(axis=1)

    @cached_property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sample; of a pair, those of both answers."""
        return np.diff(self._ids[1]).reshape(-1, self._parts).sum(axis=1)

    @cached_property
    def begins_row(self) -> NDArray[np.bool_]:
        """Whether each sample is the first of its row."""
        return np.diff(self.column("row"), prepend=-1) != 0

    def sample(self, index: int) -> Sample:
        """One sample."""
        if self.is_paired:
            return PreparedPair(self._part(2 * index), self._part(2 * index + 1))
        return self._part(index)

    def _part(self, index: int) -> Prepared:
        ids, id_offsets = self._ids
        spans, span_offsets = self._spans
        flat = spans[span_offsets[index] : span_offsets[index + 1]].tolist()
        columns = self._table.column("columns")[index].as_py()
        return Prepared(
            tuple(ids[id_offsets[index] : id_offsets[index + 1]].tolist()),
            tuple(zip(flat[::2], flat[1::2], strict=True)),
            Source(
                self._file_names[self._table.column("file")[index].as_py()], self._table.column("line")[index].as_py()
            ),
            text=self._table.column("text")[index].as_py(),
            label=self._table.column("label")[index].as_py(),
            columns=_read_columns(columns),
        )

    @cached_property
    def _ids(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        return self._lists("input_ids")

    @cached_property
    def _spans(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        return self._lists("spans")

    def _lists(self, name: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All values of a column of lists, and where each list begins and ends in them."""
        lists = self._table.column(name)
        return lists.values.to_numpy(), lists.offsets.to_numpy()


def _read_columns(written: str | None) -> Mapping[str, Any]:
    return {} if written is None else json.loads(written)

"""From prepared rows to the report on a split: all counts come from columns and tallies, no sample is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from component.data.cache_entry import CachedRows
from component.data.filling import EntryFiles
from component.data.report import (
    MAX_LISTED_CUTS,
    MAX_LISTED_FAILURES,
    DataReport,
    FileReport,
    Lengths,
    SourceReport,
    say_rows,
)
from component.data.rows import Failure, Source
from component.data.samples import Samples
from component.data.tally import FileCount, Tally


@dataclass(frozen=True)
class CountedEntry:
    """One entry of the config.

    Attributes:
        source: its files.
        hashes: of the content of each file.
        rows: of all files.
        rows_taken: usable rows that are used, which a mixture may make fewer.
        weight: in the mixture.
    """

    source: EntryFiles
    hashes: Sequence[str]
    rows: CachedRows
    rows_taken: int
    weight: float | None = None

    @property
    def report(self) -> SourceReport:
        """Its counts."""
        tally = self.rows.tally
        return SourceReport(
            self.source.name, tally.rows_read, tally.rows_used, tally.rows_dropped, self.rows_taken, self.weight
        )


def report_split(
    split: str,
    entries: Sequence[CountedEntry],
    samples: Samples,
    *,
    is_detected: bool,
    notices: Sequence[str] = (),
    rows_held_out: int = 0,
    train: Samples | None = None,
) -> DataReport:
    """The report on a split.

    Args:
        split: "train" or "evaluation".
        entries: of the config.
        samples: those that are used.
        is_detected: whether formats were detected.
        notices: on the split as a whole.
        rows_held_out: usable rows that evaluation takes.
        train: of an evaluation split, the samples that are trained on.
    """
    tally = Tally()
    for entry in entries:
        tally.add(entry.rows.tally)
    sources = tuple(entry.report for entry in entries)
    failures = itertools.chain.from_iterable(_failures(entry.rows) for entry in entries)
    counted = (f"{notice} ({say_rows(count)})" for notice, count in tally.notices.most_common())
    return DataReport(
        split=split,
        files=tuple(file for entry in entries for file in _files(entry, is_detected)),
        sources=sources,
        rows_read=tally.rows_read,
        rows_used=tally.rows_used,
        rows_dropped=tally.rows_dropped,
        rows_held_out=rows_held_out,
        rows_left_out=sum(source.rows_used - source.rows_taken for source in sources),
        dropped_by_reason=dict(tally.reasons.most_common()),
        failures=tuple(itertools.islice(failures, MAX_LISTED_FAILURES)),
        unread_columns=dict(tally.unread_columns.most_common()),
        notices=(*notices, *(notice for entry in entries for notice in _notices(entry)), *counted),
        **_counts_of_samples(samples, train),
    )


def report_held_out(samples: Samples, train: Samples) -> DataReport:
    """The report on rows that evaluation takes from the training files, whose own report says all else of them."""
    report = report_split("evaluation", (), samples, is_detected=False, train=train)
    return replace(report, rows_read=samples.num_rows, rows_used=samples.num_rows)


def _counts_of_samples(samples: Samples, train: Samples | None) -> dict[str, Any]:
    num_tokens_cut, digests = samples.of_rows("num_tokens_cut"), samples.of_rows("digest")
    without_stop = np.flatnonzero(samples.of_rows("is_without_stop"))
    return {
        "rows_truncated": int(np.count_nonzero(num_tokens_cut)),
        "rows_without_stop": len(without_stop),
        "cut_answers": tuple(str(sample.source) for sample in samples.take_rows(without_stop[:MAX_LISTED_CUTS])),
        "rows_repeated": len(digests) - len(np.unique(digests)),
        "rows_also_in_train": 0 if train is None else int(np.isin(digests, train.of_rows("digest")).sum()),
        "num_samples": len(samples),
        "num_tokens": int(samples.num_tokens.sum()),
        "num_supervised_tokens": int(samples.num_supervised_tokens.sum()),
        "num_truncated_tokens": int(num_tokens_cut.sum()),
        "lengths": Lengths.of(samples.lengths),
    }


def _failures(rows: CachedRows) -> Iterator[Failure]:
    """The first rows of an entry that were dropped."""
    for dropped in rows.tally.dropped:
        yield Failure(Source(rows.file_names[dropped.file], dropped.line), dropped.reason)


def _files(entry: CountedEntry, is_detected: bool) -> Iterator[FileReport]:
    for index, (file, sha256) in enumerate(zip(entry.source.files, entry.hashes, strict=True)):
        count = entry.rows.tally.files.get(index, FileCount())
        yield FileReport(file.name, sha256, count.rows_read, count.data_format, is_detected)


def _notices(entry: CountedEntry) -> Iterator[str]:
    """Files without rows, and those that the limit leaves unread."""
    num_used, limit = 0, entry.source.limit
    for index, file in enumerate(entry.source.files):
        if num_used == limit:
            yield f"{file.name} is not read: max_samples is reached before it"
            continue
        count = entry.rows.tally.files.get(index, FileCount())
        num_used += count.rows_used
        if not count.rows_read:
            yield f"{file.name} holds no rows"
        if num_used == limit:
            yield f"{file.name} is read up to row {count.rows_read:,}, where max_samples is reached"

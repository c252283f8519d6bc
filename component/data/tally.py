"""Counts what happens to the rows of one split while they are read, and makes its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from component.data.report import (
    MAX_LISTED_FAILURES,
    DataReport,
    FileReport,
    Lengths,
    SourceReport,
    reason_category,
    say_rows,
)
from component.data.rows import EncodedRow, Failure, Prepared, Row, Source


class Tally:
    """Running counts of one split.

    Args:
        split: "train" or "evaluation".
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self.files: list[FileReport] = []
        self.sources: list[SourceReport] = []
        self.failures: list[Failure] = []
        self.rows_read = 0
        self.rows_used = 0
        self.reasons: Counter[str] = Counter()
        self.cut_tokens: dict[object, int] = {}
        self.without_stop: set[object] = set()
        self._columns: Counter[str] = Counter()
        self._row_notices: Counter[str] = Counter()
        self._notices: list[str] = []

    @property
    def rows_dropped(self) -> int:
        """Rows that cannot be used."""
        return sum(self.reasons.values())

    def drop(self, failure: Failure) -> None:
        """Count a row that cannot be used."""
        self.reasons[reason_category(failure.reason)] += 1
        if len(self.failures) < MAX_LISTED_FAILURES:
            self.failures.append(failure)

    def count_entry(self, entry: str, before: tuple[int, int], rows_used: int) -> None:
        """Count the rows of one entry of the config.

        Args:
            entry: as the config writes it.
            before: rows read and dropped before it.
            rows_used: usable rows in it.
        """
        rows_read, rows_dropped = self.rows_read - before[0], self.rows_dropped - before[1]
        self.sources.append(SourceReport(entry, rows_read, rows_used, rows_dropped, rows_used))

    def count_mixture(self, weights: Sequence[float], sources: Sequence[int]) -> None:
        """Count which entry the rows come from that a mixture takes.

        Args:
            weights: of each entry.
            sources: the index of the entry of each row.
        """
        taken = Counter(sources)
        self.sources = [
            replace(source, weight=weight, rows_taken=taken[index])
            for index, (source, weight) in enumerate(zip(self.sources, weights, strict=True))
        ]

    def note_row(self, row: Row) -> None:
        """Count what a row holds that is not read, and what is odd in it."""
        self._columns.update(row.columns.keys())
        self._row_notices.update(set(row.notices))

    def note_encoded(self, source: Source, encoded: EncodedRow) -> None:
        """Count what was cut and what was odd when a row that is used was encoded."""
        self._row_notices.update(set(encoded.notices))
        if encoded.num_tokens_cut:
            self.cut_tokens[source] = encoded.num_tokens_cut
        if encoded.is_without_stop:
            self.without_stop.add(source)

    def note(self, *notices: str) -> None:
        """Add notices about the split as a whole."""
        self._notices.extend(notices)

    def report(self, samples: Sequence[Prepared], *, rows_held_out: int = 0, rows_also_in_train: int = 0) -> DataReport:
        """The report on these samples of the split."""
        assert self.rows_read == self.rows_used + self.rows_dropped, "a row was neither used nor dropped"
        sources = {sample.source for sample in samples}
        cut = {source: count for source, count in self.cut_tokens.items() if source in sources}
        counted = tuple(f"{notice} ({say_rows(count)})" for notice, count in self._row_notices.most_common())
        return DataReport(
            split=self.split,
            files=tuple(self.files),
            sources=tuple(self.sources),
            rows_read=self.rows_read,
            rows_used=self.rows_used,
            rows_dropped=self.rows_dropped,
            rows_held_out=rows_held_out,
            rows_left_out=sum(source.rows_used - source.rows_taken for source in self.sources),
            rows_truncated=len(cut),
            rows_without_stop=len(self.without_stop & sources),
            rows_also_in_train=rows_also_in_train,
            dropped_by_reason=dict(self.reasons.most_common()),
            failures=tuple(self.failures),
            num_samples=len(samples),
            num_tokens=sum(sample.length for sample in samples),
            num_supervised_tokens=sum(sample.num_supervised_tokens for sample in samples),
            num_truncated_tokens=sum(cut.values()),
            lengths=Lengths.of([sample.length for sample in samples]),
            unread_columns=dict(self._columns.most_common()),
            notices=(*self._notices, *counted),
        )

    def held_out(self, rows: int) -> Tally:
        """The tally of the rows that evaluation takes from this split: all of them read and used."""
        part = Tally("evaluation")
        part.files = self.files
        part.rows_read = part.rows_used = rows
        part.cut_tokens = self.cut_tokens
        part.without_stop = self.without_stop
        return part

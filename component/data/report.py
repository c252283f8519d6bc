"""What preparing the data did: every row, token and key that was used, cut, dropped or ignored, counted and named."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from component.data.rows import Failure

#: How many dropped rows a report names one by one; all are counted.
MAX_LISTED_FAILURES = 1000
#: How many rows whose answer was cut it names.
MAX_LISTED_CUTS = 5

_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True)
class FileReport:
    """One data file: its content hash, its rows, and the format they have (None if it has no rows)."""

    path: str
    sha256: str
    rows: int
    data_format: str | None
    is_detected: bool


@dataclass(frozen=True)
class SourceReport:
    """One entry of the config, be it a file or many: its rows, and how many of the usable ones are taken."""

    entry: str
    rows_read: int
    rows_used: int
    rows_dropped: int
    rows_taken: int
    weight: float | None = None


@dataclass(frozen=True)
class Lengths:
    """Percentiles of sample lengths in tokens, each the length of some sample (nearest rank)."""

    minimum: int
    p50: int
    p90: int
    p99: int
    maximum: int

    @classmethod
    def of(cls, lengths: Sequence[int] | NDArray[np.int64]) -> Lengths:
        """Summarise lengths; all are 0 when there are none."""
        ranked = np.sort(np.asarray(lengths, dtype=np.int64)) if len(lengths) else np.zeros(1, np.int64)
        ranks = [0, *(math.ceil(share * len(ranked)) - 1 for share in (0.5, 0.9, 0.99)), -1]
        return cls(*(int(length) for length in ranked[ranks]))


@dataclass(frozen=True)
class DataReport:
    """One split of the data. `rows_read == rows_used + rows_dropped`, always.

    Attributes:
        split: "train" or "evaluation".
        files: where the rows came from.
        sources: the entries of the config that name them.
        rows_read: records found in the files, broken ones included and blank lines not.
        rows_used: rows that are trained or evaluated on.
        rows_held_out: those of the used rows that `eval_split` took for evaluation; the counts below leave them out.
        rows_left_out: those of the used rows that `mixture_weights` does not take; the counts below leave them out.
        rows_dropped: rows that cannot be used.
        rows_truncated: used rows that were cut to the length limit.
        rows_without_stop: truncated rows whose last answer lost its stop token.
        cut_answers: where the first of those rows are, at most `MAX_LISTED_CUTS`.
        rows_repeated: rows that equal an earlier one of the split, token for token.
        rows_also_in_train: evaluation rows that equal a training row, token for token.
        dropped_by_reason: how many rows each kind of reason dropped, most first.
        failures: the first dropped rows, at most `MAX_LISTED_FAILURES`.
        num_samples: samples made of the rows; a document longer than the limit makes several.
        num_tokens, num_supervised_tokens: over the samples.
        num_truncated_tokens: tokens that truncation cut off.
        lengths: of the samples.
        unread_columns: columns that the format does not read, with the number of rows that have them.
        notices: what was odd or ignored, one line each.
    """

    split: str
    files: tuple[FileReport, ...]
    sources: tuple[SourceReport, ...]
    rows_read: int
    rows_used: int
    rows_dropped: int
    rows_held_out: int
    rows_left_out: int
    rows_truncated: int
    rows_without_stop: int
    cut_answers: tuple[str, ...]
    rows_repeated: int
    rows_also_in_train: int
    dropped_by_reason: Mapping[str, int]
    failures: tuple[Failure, ...]
    num_samples: int
    num_tokens: int
    num_supervised_tokens: int
    num_truncated_tokens: int
    lengths: Lengths
    unread_columns: Mapping[str, int]
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values; a failure is {"source": "file:line", "reason": ...}."""
        values = asdict(self)
        values["failures"] = [{"source": str(item.source), "reason": item.reason} for item in self.failures]
        values["files"] = list(values["files"])
        values["sources"] = list(values["sources"])
        values["notices"] = list(self.notices)
        values["cut_answers"] = list(self.cut_answers)
        return values

    def lines(self) -> list[str]:
        """The report as text, the most important line first."""
        kept = self.rows_used - self.rows_held_out - self.rows_left_out
        lines = [
            f"{self.split}: kept {kept:,}  truncated {self.rows_truncated:,}  dropped {self.rows_dropped:,}"
            + (f" ({describe_reasons(self.dropped_by_reason)})" if self.rows_dropped else "")
            + (f"  held out {self.rows_held_out:,}" if self.rows_held_out else "")
            + (f"  left out {self.rows_left_out:,}" if self.rows_left_out else ""),
            f"{self.split}: {self.num_tokens:,} tokens in {self.num_samples:,} samples, "
            f"{self.num_supervised_tokens:,} supervised, {self.num_truncated_tokens:,} cut off",
            f"{self.split}: length min {self.lengths.minimum:,}  p50 {self.lengths.p50:,}  p90 {self.lengths.p90:,}  "
            f"p99 {self.lengths.p99:,}  max {self.lengths.maximum:,}",
        ]
        for file in self.files:
            how = "detected" if file.is_detected else "as set"
            format_text = f"{file.data_format} ({how})" if file.data_format else "no format"
            lines.append(f"{self.split}: {file.path}: {say_rows(file.rows)}, {format_text}")
        if len(self.sources) > 1:
            lines += [f"{self.split}: {describe_source(source)}" for source in self.sources]
        if self.rows_without_stop:
            count = say_rows(self.rows_without_stop)
            where = ", ".join(self.cut_answers) + (", ..." if self.rows_without_stop > len(self.cut_answers) else "")
            lines.append(f"{self.split}: {count} cut before the stop token of an answer: {where}")
        if self.rows_repeated:
            lines.append(f"{self.split}: {say_rows(self.rows_repeated)} equal to an earlier one, token for token")
        if self.rows_also_in_train:
            lines.append(f"{self.split}: {say_rows(self.rows_also_in_train)} also in the training data")
        if self.unread_columns:
            columns = ", ".join(f"{name} ({say_rows(count)})" for name, count in self.unread_columns.items())
            lines.append(f"{self.split}: columns not read: {columns}")
        return [*lines, *(f"{self.split}: {notice}" for notice in self.notices)]


def describe_source(source: SourceReport) -> str:
    """An entry of the config in words: `a.jsonl (weight 0.7): 70 rows taken, 30 left out, 2 dropped`."""
    weight = "" if source.weight is None else f" (weight {source.weight:g})"
    left_out = source.rows_used - source.rows_taken
    parts = [f"{say_rows(source.rows_taken)} taken"]
    parts += [f"{left_out:,} left out"] if left_out else []
    parts += [f"{source.rows_dropped:,} dropped"] if source.rows_dropped else []
    return f"{source.entry}{weight}: {', '.join(parts)}"


def say_rows(count: int) -> str:
    """A number of rows in words."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def reason_category(reason: str) -> str:
    """The kind of a reason: what stands before its detail, without numbers."""
    return _NUMBER.sub("N", reason.split(": ", 1)[0])


def describe_reasons(dropped_by_reason: Mapping[str, int]) -> str:
    """Counts by kind of reason in words: `31 empty answer, 17 bad JSON`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped_by_reason.items())

"""Counts what happens to rows while they are read and encoded; counts of one stretch after the other add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from component.data.report import MAX_LISTED_FAILURES, reason_category
from component.data.rows import EncodedRow, Row


@dataclass
class FileCount:
    """Rows of one file: read, and used; and the format that they have, None if none of them can be read."""

    rows_read: int = 0
    rows_used: int = 0
    data_format: str | None = None


@dataclass(frozen=True)
class Dropped:
    """A row that cannot be used: the index of its file, its line, and the reason."""

    file: int
    line: int
    reason: str


class Tally:
    """Running counts of the rows of some files, in the order in which they are read.

    Attributes:
        files: counts by the index of the file; a file without rows is absent.
        dropped: rows that cannot be used.
        reasons: how many rows each kind of reason dropped.
        unread_columns: how many rows have each of the columns that the format does not read.
        notices: how many rows each notice is about.
        num_samples, num_tokens: made of the rows that are used.
    """

    def __init__(self) -> None:
        self.files: dict[int, FileCount] = {}
        self.dropped: list[Dropped] = []
        self.reasons: Counter[str] = Counter()
        self.unread_columns: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.num_samples = self.num_tokens = 0

    @property
    def rows_read(self) -> int:
        """Records found, broken ones included."""
        return sum(file.rows_read for file in self.files.values())

    @property
    def rows_used(self) -> int:
        """Rows that are trained or evaluated on."""
        return sum(file.rows_used for file in self.files.values())

    @property
    def rows_dropped(self) -> int:
        """Rows that cannot be used."""
        return sum(self.reasons.values())

    def read(self, file: int, data_format: str | None) -> None:
        """Count a record that was found."""
        count = self.files.setdefault(file, FileCount())
        count.rows_read += 1
        count.data_format = data_format

    def drop(self, dropped: Dropped) -> None:
        """Count a row that cannot be used."""
        self.reasons[reason_category(dropped.reason)] += 1
        self.dropped.append(dropped)

    def parsed(self, row: Row, *, reads_columns: bool = False) -> None:
        """Count what a row holds that is not read, unless its samples carry it along, and what is odd in it."""
        if not reads_columns:
            self.unread_columns.update(row.columns.keys())
        self.notices.update(dict.fromkeys(row.notices, 1))

    def use(self, file: int, encoded: EncodedRow) -> None:
        """Count a row that is used."""
        self.files[file].rows_used += 1
        self.notices.update(dict.fromkeys(encoded.notices, 1))

    def add(self, other: Tally) -> None:
        """Add the counts of the stretch that follows; of all dropped rows, the first are kept one by one."""
        for index, count in other.files.items():
            mine = self.files.setdefault(index, FileCount())
            mine.rows_read += count.rows_read
            mine.rows_used += count.rows_used
            mine.data_format = count.data_format
        self.dropped += other.dropped[: max(0, MAX_LISTED_FAILURES - len(self.dropped))]
        for name in ("reasons", "unread_columns", "notices"):
            getattr(self, name).update(getattr(other, name))
        self.num_samples += other.num_samples
        self.num_tokens += other.num_tokens

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON-ready values."""
        return {
            "files": {
                str(index): [count.rows_read, count.rows_used, count.data_format] for index, count in self.files.items()
            },
            "dropped": [[row.file, row.line, row.reason] for row in self.dropped],
            "unread_columns": dict(self.unread_columns),
            "notices": dict(self.notices),
            "num_samples": self.num_samples,
            "num_tokens": self.num_tokens,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tally:
        """Counts as `to_dict` gives them."""
        tally = cls()
        tally.files = {int(index): FileCount(*counts) for index, counts in values["files"].items()}
        for dropped in values["dropped"]:
            tally.drop(Dropped(*dropped))
        tally.unread_columns = Counter(values["unread_columns"])
        tally.notices = Counter(values["notices"])
        tally.num_samples, tally.num_tokens = values["num_samples"], values["num_tokens"]
        return tally

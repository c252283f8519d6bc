"""How far the preparation of the data has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from component.data.records import COMPRESSIONS, data_suffix

_SECONDS_BETWEEN_LINES = 30
#: As narrow as that of training.
_BAR_WIDTH = 12
#: Of a file whose lines are its rows, this much is looked at to guess how many there are.
_SAMPLE_BYTES = 2**22


class RowProgress:
    """Shows how many rows are prepared.

    Args:
        what: the data.
        done: rows that were prepared before.
        total: about how many there are; None if nobody knows.
    """

    def __init__(self, what: str, *, done: int, total: int | None) -> None:
        self._what = what
        self._done = self._begun_with = done
        self._total = None if total is None else max(total, done)
        self._begun_at = self._line_at = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> RowProgress:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(_BAR_WIDTH),
                TextColumn("{task.completed:,.0f} rows  {task.fields[speed]:,.0f} rows/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(f"prepare {self._what}", total=self._total, completed=self._done, speed=0)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, num_rows: int) -> None:
        """Count rows that were prepared."""
        self._done += num_rows
        now = time.monotonic()
        speed = (self._done - self._begun_with) / max(now - self._begun_at, 1e-9)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done, speed=speed)
        elif now - self._line_at >= _SECONDS_BETWEEN_LINES:
            self._line_at = now
            total = "" if self._total is None else f" of about {self._total:,}"
            logger.info(f"prepare {self._what}: {self._done:,}{total} rows, {speed:,.0f} rows/s")


def estimate_rows(paths: Sequence[Path], limit: int | None) -> int | None:
    """About how many rows files hold, judged by their size and the lines at their beginning.

    Args:
        limit: how many are read at most; None for all.

    Returns:
        None where a file's rows are not its lines, or it is compressed.
    """
    total = 0.0
    for path in paths:
        if data_suffix(path) not in (".jsonl", ".csv", ".tsv") or path.suffix.lower() in COMPRESSIONS:
            return limit
        try:
            with open(path, "rb") as file:
                start = file.read(_SAMPLE_BYTES)
            total += start.count(b"\n") * path.stat().st_size / max(len(start), 1)
        except OSError:
            return limit
    return round(total) if limit is None else min(round(total), limit)

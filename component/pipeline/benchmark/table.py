"""Tables of results in Markdown: columns are data, and a case without a result says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from component.pipeline.benchmark.case import Case
from component.pipeline.benchmark.results import DONE, FAILED, is_number

#: The median result of a case, or None where it was not run.
Summary = Mapping[str, Any]
NOT_RUN = "not run"
#: Letters of a reason that fit a table.
REASON_LETTERS = 160


@dataclass(frozen=True)
class Line:
    """A case and its result."""

    case: Case
    summary: Summary | None

    @property
    def is_done(self) -> bool:
        """Whether there is something to compare."""
        return self.summary is not None and self.summary["status"] == DONE

    def number(self, name: str) -> float | None:
        """A measured number; None where there is none."""
        value = self.summary.get(name) if self.summary is not None and self.is_done else None
        return value if is_number(value) else None


@dataclass(frozen=True)
class Column:
    """A column: its title and what it shows of a line that has a result."""

    title: str
    show: Callable[[Line], str]


def number(title: str, name: str, form: str = ",.0f", *, scale: float = 1.0) -> Column:
    """A column of one measured number.

    Args:
        scale: what the number is divided by.
    """

    def show(line: Line) -> str:
        """The number, a dash where it was not measured."""
        value = line.number(name)
        return "-" if value is None else format(value / scale, form)

    return Column(title, show)


def text(title: str, name: str) -> Column:
    """A column of one measured word."""
    return Column(title, lambda line: str((line.summary or {}).get(name) or "-"))


REAL_TOKENS = number("real tokens/s", "real_tokens_per_second")
PADDED_TOKENS = number("padded tokens/s", "padded_tokens_per_second")
ALLOCATED = number("peak allocated GiB", "peak_allocated_bytes", ".2f", scale=2**30)
RESERVED = number("reserved GiB", "peak_reserved_bytes", ".2f", scale=2**30)
MFU = number("MFU", "mfu", ".1%")
FIRST_LOSS = number("first loss", "first_loss", ".4f")
LAST_LOSS = number("last loss", "last_loss", ".4f")
FIRST_STEP = number("s to first step", "first_step_seconds")
RUNS = number("runs", "num_runs")


def render_table(columns: Sequence[Column], lines: Sequence[Line], *, first: str = "run") -> str:
    """Render lines as Markdown.

    Args:
        first: title of the column with the cases' names.
    """
    rows = []
    for line in lines:
        cells = [column.show(line) for column in columns] if line.is_done else [verdict(line)]
        rows.append([line.case.name, *cells, *[""] * (len(columns) - len(cells))])
    return render_rows([first, *(column.title for column in columns)], rows)


def render_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render cells as Markdown."""
    return "\n".join([_row(titles), "|" + "---|" * len(titles), *map(_row, rows)])


def verdict(line: Line) -> str:
    """Why a case has no numbers."""
    if line.summary is None:
        return NOT_RUN
    if line.summary["status"] != FAILED:
        return str(line.summary["status"])
    reason = str(line.summary.get("reason", "")).replace("|", "/")[:REASON_LETTERS]
    return f"failed, exit {line.summary.get('exit_code', '?')}: {reason}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")

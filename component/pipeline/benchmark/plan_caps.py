"""Configs under the memory of the smallest card on which they are said to fit: the caps, and how their runs ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from component.pipeline.benchmark.measured import reason_of
from component.pipeline.benchmark.plan_cases import Case
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY, Results, summarize
from component.pipeline.benchmark.table import NOT_RUN, REASON_LETTERS, render_rows
from component.planning.choice import MEMORY_MARGIN
from component.planning.gpus import CONTEXT_BYTES, GIB

MIB = 2**20
FITS, TIGHT = "fits", "tight"
#: What the planner says of a card -> the share of its memory that a config leaves free there.
MARGINS: Mapping[str, float] = {FITS: MEMORY_MARGIN, TIGHT: 0.0}
#: Where it has run under less, a config is not run under more.
IMPLIED = "ran under less"
TITLES = (
    "config", "held out", "planned reserved GiB", "the planner says", "cap GiB", "reserved GiB under the cap", "ended",
)  # fmt: skip


@dataclass(frozen=True)
class CappedRun:
    """A config under a cap.

    Attributes:
        case: with its cap.
        said: what the planner says of a card of so much memory, a key of MARGINS.
        planned: bytes that it is predicted to reserve.
    """

    case: Case
    said: str
    planned: float


def cap_runs(cases: Iterable[Case], planned: Mapping[str, float]) -> list[CappedRun]:
    """Each case with its caps; those that are not planned are left out.

    Args:
        planned: name of a case -> bytes that it is predicted to reserve.
    """
    return [
        CappedRun(replace(case, cap_gib=smallest_card(planned[case.name], margin)), said, planned[case.name])
        for case in cases
        if case.name in planned
        for said, margin in MARGINS.items()
    ]


def runs_to_try(runs: Sequence[CappedRun], results: Results) -> list[CappedRun]:
    """Each config under the less memory, and under the more where that was not enough.

    A config whose first run is still to come has no second one yet.
    """
    return [item for item in runs if item.said == TIGHT or _is_not_enough(_tight(item, runs), results)]


def open_runs(runs: Sequence[CappedRun], results: Results) -> list[CappedRun]:
    """Those of which nothing is known yet, neither by a run of their own nor by one under less."""
    return [item for item in runs if _run_of(item, runs, results) is None]


def smallest_card(reserved: float, margin: float) -> float:
    """Memory in GiB, up to a whole MiB, of which this and what CUDA takes for itself leave a share free."""
    return math.ceil((reserved + CONTEXT_BYTES) / (1 - margin) / MIB) * MIB / GIB


def render_capped(runs: Sequence[CappedRun], results: Results) -> str:
    """The table, and how many of the runs came to their end."""
    ended = [(item, _run_of(item, runs, results)) for item in runs]
    table = render_rows(TITLES, [_row(item, run) for item, run in ended])
    statuses = [[run["status"] for item, run in ended if run and item.said == said] for said in MARGINS]
    fits, tight = (f"{found.count(DONE) + found.count(IMPLIED)} of {len(found)}" for found in statuses)
    shares = f"{fits} ran under the memory of the smallest card on which they are said to fit"
    others = [
        f"{status.capitalize()}: {'; '.join(names)}."
        for status in (OUT_OF_MEMORY, FAILED)
        if (names := [f"{item.case.name} ({item.said})" for item, run in ended if run and run["status"] == status])
    ]
    return "\n\n".join([table, f"{shares}; {tight} without any margin.", *others])


def render_left_out(unmeasured: Sequence[str], too_large: Sequence[str], memory_gib: float) -> str:
    """What the table has not, by name; nothing where it has all.

    Args:
        unmeasured: configs.
        too_large: configs with their caps.
        memory_gib: of the smallest GPU that is used.
    """
    parts = {
        "without a measurement to plan from": unmeasured,
        f"under more than the {memory_gib:.2f} GiB of the smallest GPU here": too_large,
    }
    return "\n\n".join(f"Left out, {why}: {'; '.join(names)}." for why, names in parts.items() if names)


def _tight(item: CappedRun, runs: Sequence[CappedRun]) -> CappedRun | None:
    """The run of its config without any margin."""
    return next((other for other in runs if other.case.config == item.case.config and other.said == TIGHT), None)


def _is_not_enough(tight: CappedRun | None, results: Results) -> bool:
    """Whether that run did not come to its end, or there is none to wait for."""
    run = None if tight is None else summarize(results.runs(tight.case))
    return tight is None or (run is not None and run["status"] != DONE)


def _run_of(item: CappedRun, runs: Sequence[CappedRun], results: Results) -> Mapping[str, Any] | None:
    """Its run, or that there need be none; None where it is still to come."""
    run, tight = summarize(results.runs(item.case)), _tight(item, runs)
    under_less = summarize(results.runs(tight.case)) if item.said == FITS and tight is not None else None
    has_ended_well = run is not None and run["status"] == DONE
    return {"status": IMPLIED} if under_less and under_less["status"] == DONE and not has_ended_well else run


def _row(item: CappedRun, run: Mapping[str, Any] | None) -> list[str]:
    reserved = (run or {}).get("peak_reserved_bytes")
    return [
        item.case.config,
        "yes" if item.case.is_held_out else "",
        f"{item.planned / GIB:.2f}",
        item.said,
        f"{item.case.cap_gib:.2f}",
        "-" if reserved is None else f"{reserved / GIB:.2f}",
        _end(run),
    ]


def _end(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return NOT_RUN
    if run["status"] == FAILED:
        return f"failed: {reason_of(run['lines']).replace('|', '/')[:REASON_LETTERS]}"
    return "ran" if run["status"] == DONE else str(run["status"])

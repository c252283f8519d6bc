"""Suite `auto`: the settings that `auto` chooses under caps of memory, against the best of a grid that fits them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from component.artifacts.benchmark_picture import Curves, draw_curves
from component.config.errors import UserError
from component.pipeline.benchmark.auto_cases import (
    CAPS,
    GLOBAL_BATCH,
    QUICK_POINTS,
    Point,
    auto_case,
    build_case,
    grid_points,
)
from component.pipeline.benchmark.case import Case
from component.pipeline.benchmark.files import shape_of
from component.pipeline.benchmark.options import QUICK_MODEL, add_common_options
from component.pipeline.benchmark.results import OUT_OF_MEMORY
from component.pipeline.benchmark.suite import Suite
from component.pipeline.benchmark.table import (
    ALLOCATED,
    LAST_LOSS,
    NOT_RUN,
    RESERVED,
    RUNS,
    Line,
    number,
    render_rows,
    render_table,
    verdict,
)
from component.pipeline.plan_inputs import own_gpu
from component.planning.gpus import CONTEXT_BYTES
from component.runtime.command import Distinct, non_empty, positive_float, positive_int

SUITE, MODEL, GIB = "auto", "llama3 8b", 2**30
NOTHING = "nothing is predicted to fit"
GRID_TITLE = "Points of the grid, without a cap:"
#: The median over stretches of steps, by which runs are compared, and the mean.
SPEED, MEAN_SPEED = "median_tokens_per_second", "real_tokens_per_second"
GRID_COLUMNS = (
    number("tokens/s, median", SPEED),
    number("mean", MEAN_SPEED),
    ALLOCATED,
    RESERVED,
    LAST_LOSS,
    number("evaluation loss", "eval_loss", ".4f"),
    RUNS,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    add_common_options(parser, SUITE, model=MODEL, replaced_by_quick=("--caps", "--micro_batches"))
    parser.add_argument(
        "--caps", nargs="+", type=positive_float, action=Distinct, default=list(CAPS), metavar="GIB",
        help="of memory, in GiB; one beyond the card's is the card's",
    )  # fmt: skip
    parser.add_argument(
        "--micro_batches", nargs="+", type=_micro_batch, action=Distinct, default=[1, 4, 8], metavar="N",
        help=f"rows of a micro-batch in the grid; divisors of {GLOBAL_BATCH}",
    )  # fmt: skip
    parser.add_argument(
        "--points", nargs="+", type=non_empty, action=Distinct, default=[], metavar="TEXT",
        help="those points of the grid alone whose name contains one of these, such as offloaded",
    )  # fmt: skip


def _micro_batch(text: str) -> int:
    number = positive_int(text)
    if GLOBAL_BATCH % number:
        divisors = [rows for rows in range(1, GLOBAL_BATCH + 1) if GLOBAL_BATCH % rows == 0]
        raise argparse.ArgumentTypeError(f"got {text!r}; use divisors of {GLOBAL_BATCH}: {divisors}")
    return number


@dataclass(frozen=True)
class Compared:
    """A cap: what `auto` did under it, how often it ran out of memory, and the fastest of the grid that fits it.

    Attributes:
        is_grid_whole: whether all points of the grid were run.
    """

    cap: float
    auto: Line
    num_out_of_memory: int
    best: Line | None
    is_grid_whole: bool = True

    @property
    def ratio(self) -> float | None:
        """Speed of `auto` over that of the best; None where one was not measured."""
        mine, best = self.auto.number(SPEED), self.best.number(SPEED) if self.best else None
        return mine / best if mine and best else None


def run_suite(options: argparse.Namespace) -> None:
    """Run `auto` under each cap in a process of its own, then the grid without one in two processes, and compare.

    Raises:
        UserError: the planner does not know the model, or no point is wanted.
    """
    model = QUICK_MODEL if options.quick and options.model == MODEL else options.model
    grids = _grids(model, options)
    suite, card = Suite(SUITE, options), own_gpu()
    card_gib = card.memory_bytes / GIB if card else None
    caps = sorted(options.caps)[-1:] if options.quick else sorted(options.caps)
    autos = suite.measure([auto_case(cap, model, card_gib, quick=options.quick) for cap in caps])
    grid = [line for cases in grids for line in suite.measure(cases, share_process=True)]
    is_whole = all(line.summary for line in grid)
    compared = [
        Compared(cap, line, count_out_of_memory(suite.runs(line.case)), best_of(grid, cap), is_whole)
        for cap, line in zip(caps, autos, strict=True)
    ]
    suite.write(
        render_compared(compared), grid_note(options.points), caption(autos[0].case), GRID_TITLE,
        render_table(GRID_COLUMNS, grid, first="settings"),
    )  # fmt: skip
    draw_curves(curves(compared), suite.picture)


def _grids(model: str, options: argparse.Namespace) -> list[list[Case]]:
    """The points of the grid, by the process that they can share: see KEPT_BY_PROCESS of `shared_runs`."""
    shape = shape_of(model)
    if shape is None:
        raise UserError(
            f"--model: the planner, by which auto chooses, does not know the layers of {model}; use another"
        )
    points = QUICK_POINTS if options.quick else grid_points(options.micro_batches, may_offload=not shape.is_tied)
    points = wanted_points(points, options.points)
    return [
        [build_case(point.name, model, point.settings(shape.num_layers), quick=options.quick) for point in some]
        for _, some in groupby(points, key=lambda point: bool(point.offloaded))
    ]


def wanted_points(points: Iterable[Point], texts: Sequence[str]) -> list[Point]:
    """Those whose name contains one of the texts; all where there are no texts.

    Raises:
        UserError: there is none.
    """
    points = list(points)
    wanted = [point for point in points if not texts or any(text in point.name for text in texts)]
    if not wanted:
        names = "; ".join(point.name for point in points)
        raise UserError(f"--points: {' or '.join(texts)} is in no name of a point; they are: {names}")
    return wanted


def grid_note(texts: Sequence[str]) -> str:
    """What --points has left of the grid; nothing without it."""
    return f"Of the grid only points with {' or '.join(texts)} in their name." if texts else ""


def choice_of(run: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What run.json says of the choice; empty where the run did not come to it."""
    return ((run or {}).get("manifest") or {}).get("auto") or {}


def count_out_of_memory(runs: Sequence[Mapping[str, Any]]) -> int:
    """Runs that ended for want of memory although the choice was predicted to fit."""
    return sum(run["status"] == OUT_OF_MEMORY and choice_of(run).get("fits", True) for run in runs)


def fits(line: Line, cap: float) -> bool:
    """Whether a run without a cap stayed within one, what CUDA itself takes included.

    Args:
        cap: in GiB.
    """
    reserved = line.number("peak_reserved_bytes")
    return line.is_done and (reserved or 0) + (CONTEXT_BYTES if reserved else 0) <= cap * GIB


def best_of(grid: Sequence[Line], cap: float) -> Line | None:
    """The fastest point that fits a cap; None where none does that has a speed."""
    timed = [(speed, line) for line in grid if fits(line, cap) and (speed := line.number(SPEED))]
    return max(timed, key=lambda pair: pair[0])[1] if timed else None


def chosen_settings(line: Line) -> str:
    """What `auto` chose and whether that was predicted to fit, or why there is nothing to show."""
    choice = choice_of(line.summary)
    chosen = " ".join(f"{key}={str(value).lower()}" for key, value in choice.get("chosen", {}).items()) or "-"
    if choice.get("fits", True):
        return chosen if line.is_done else verdict(line)
    least = choice["predicted"]["peak_reserved_bytes"] / GIB
    nothing = f"{NOTHING}: the least takes {least:.2f} of {choice['room_bytes'] / GIB:.2f} GiB"
    return f"{chosen} ({nothing}, and it ran)" if line.is_done else nothing


def render_compared(compared: Sequence[Compared]) -> str:
    """A row for each cap, and the worst ratio and all runs without memory below."""
    titles = [
        "cap GiB", "auto chose", "auto tokens/s, median", "mean", "reserved GiB", "best of the grid",
        "its tokens/s, median", "mean", "ratio of medians", "out of memory",
    ]  # fmt: skip
    rows = [_row(item) for item in compared]
    ratios = [item.ratio for item in compared if item.ratio is not None]
    total = sum(item.num_out_of_memory for item in compared)
    worst = f"Worst ratio {min(ratios):.3f}" if ratios else "No ratio"
    unfit = sum(not choice_of(item.auto.summary).get("fits", True) for item in compared)
    none = f" Under {unfit} caps nothing was predicted to fit, and that was said beforehand." if unfit else ""
    return f"{render_rows(titles, rows)}\n\n{worst}; {total} runs of auto out of memory.{none}"


def _row(item: Compared) -> list[str]:
    reserved = item.auto.number("peak_reserved_bytes")
    return [
        f"{item.cap:g}",
        chosen_settings(item.auto),
        *_speeds(item.auto),
        f"{reserved / GIB:.2f}" if reserved else "-",
        item.best.case.name if item.best else "none fits" if item.is_grid_whole else NOT_RUN,
        *_speeds(item.best),
        f"{item.ratio:.3f}" if item.ratio is not None else "-",
        str(item.num_out_of_memory),
    ]


def _speeds(line: Line | None) -> list[str]:
    found = (line.number(name) if line else None for name in (SPEED, MEAN_SPEED))
    return [f"{speed:,.0f}" if speed else "-" for speed in found]


def caption(case: Case) -> str:
    """What all runs have in common.

    Args:
        case: one of them.
    """
    keys, rows, evaluation = case.settings, case.rows, case.evaluation
    assert evaluation is not None
    loader = "through Unsloth" if keys["use_unsloth"] else "without Unsloth"
    return (
        f"{Path(case.model).name}, {keys['train_mode']} of rank {keys['lora_rank']} {loader}; an epoch of "
        f"{rows.num_rows} rows, log-normal, mean {rows.mean_tokens} tokens, at most {rows.max_tokens}, {GLOBAL_BATCH} "
        f"rows (or packs) a step, and an evaluation of {evaluation.num_rows} rows. Runs are compared by the "
        f"median of their speed over stretches of {keys['logging_steps']} steps, first ones aside, not by the mean: in "
        "so short an epoch that contains what a process compiles, which each run of `auto` pays in its own, and points "
        "of the grid that share one do not. `auto` ran under the cap; points of the grid ran once without one, those "
        "with one place of the embedding in one process, and fit a cap where what they reserved and "
        f"{CONTEXT_BYTES / GIB:.2f} GiB of CUDA's own do."
    )


def curves(compared: Sequence[Compared]) -> list[Curves]:
    """Speed over the cap."""
    ours = [(item.cap, speed) for item in compared if (speed := item.auto.number(SPEED))]
    best = [(item.cap, speed) for item in compared if item.best and (speed := item.best.number(SPEED))]
    lines = {name: points for name, points in (("auto", ours), ("best of the grid", best)) if points}
    return [Curves("auto under caps of memory", "GiB", "real tokens/s, median", lines, x_is_log=True)]

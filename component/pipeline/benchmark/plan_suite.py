"""Predictions of the planner against measurements: run the cases, compare, print; it goes on where it stopped."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from component.artifacts.error_picture import draw_errors
from component.artifacts.lock import lock_folder
from component.config.errors import UserError
from component.pipeline.benchmark.device import check_device
from component.pipeline.benchmark.options import add_quick, quote_names
from component.pipeline.benchmark.plan_caps import (
    MARGINS,
    CappedRun,
    cap_runs,
    open_runs,
    render_capped,
    render_left_out,
    runs_to_try,
)
from component.pipeline.benchmark.plan_cases import CASES, QUICK_CASES
from component.pipeline.benchmark.plan_comparison import (
    UNKNOWN_SHAPES,
    Comparison,
    compare,
    explain_nothing_compared,
    unknown_shapes,
)
from component.pipeline.benchmark.plan_measurement import (
    CAPPED,
    SUITE,
    Scratch,
    measure_case,
    open_results,
)
from component.pipeline.benchmark.plan_processes import Work, measure_pending, smallest_visible_gib, visible_gpus
from component.pipeline.benchmark.report import describe_surroundings, quick_note, write_text
from component.pipeline.benchmark.results import DONE, summarize
from component.pipeline.benchmark.runner import Effort
from component.pipeline.benchmark.suite import UNFINISHED, say
from component.runtime.command import folder_path, non_empty, positive_float, positive_int

CAPTION = (
    "Measured in a process for each config. What torch reserves beyond what it allocates it gives back where another "
    "block finds no room; that is most where packed rows hold some tokens more from one step to the next."
)
#: Of what a config reserves; a plan further above it asks for a card that is so much larger than it needs to be.
SPARE = 0.10
NO_CAP = "--capped: nothing limits the memory of a CPU; run it where there is an NVIDIA GPU that processes may see"
QUICK_CAP = "--quick: its configs are for a CPU, whose memory nothing limits; leave it or --capped out"
SUM_TITLES = ("| cases | number | of | median error | worst error |", "|---|---|---|---|---|")


def compare_plans(work: Work, effort: Effort, *, is_quick: bool, say: Callable[[str], None]) -> None:
    """Measure what is still to be measured and write plan.md and plan.png beside the results.

    Raises:
        UserError: something that is left to run is too large for a CPU, and there is no NVIDIA GPU.
    """
    for case in work.pending(retry=effort.retry):
        check_device(case.shape, instead="take --quick")
    if effort.retry:
        work.forget_failures()
    measure_pending(work, effort.deadline, say)
    note = UNFINISHED if work.pending() else ""
    compared = compare(work.cases, work.results)
    quick = quick_note("tiny models", _device_of(work)) if is_quick else ""
    tables, surroundings = render(compared, failures(work)), describe_surroundings(work.cases, work.results)
    draw_errors(points(compared), work.results.path.with_suffix(".png"))
    say(write_text(work.results.path.parent, SUITE, [quick, tables, note, surroundings]))


def try_caps(work: Work, runs: Sequence[CappedRun], effort: Effort, *, say: Callable[[str], None]) -> None:
    """Run what is still to be run under its cap and write plan-capped.md beside the results.

    Raises:
        UserError: something is left to run, and there is no NVIDIA GPU.
    """
    pending = _to_try(work, runs).pending(retry=effort.retry)
    if pending and not visible_gpus():
        raise UserError(NO_CAP)
    memory_gib = smallest_visible_gib()
    configs = {run.case.config for run in runs}
    unmeasured = [case.name for case in CASES if case.name not in configs]
    lacking = work.pending(retry=effort.retry)
    too_large = [run for run in runs if run.case in lacking and (run.case.cap_gib or 0) > memory_gib]
    in_room = [run for run in runs if run not in too_large]
    if effort.retry:
        _to_try(work, in_room).forget_failures()
    for _ in MARGINS:
        measure_pending(_to_try(work, in_room), effort.deadline, say)
    note = UNFINISHED if _to_try(work, in_room).pending() else ""
    beyond = [run for run in open_runs(runs, work.results) if run in too_large]
    runs = [run for run in runs if run not in beyond]
    left_out = render_left_out(unmeasured, [run.case.name for run in beyond], memory_gib)
    tables, surroundings = render_capped(runs, work.results), describe_surroundings(work.cases, work.results)
    say(write_text(work.results.path.parent, CAPPED, [tables, left_out, note, surroundings]))


def _to_try(work: Work, runs: Sequence[CappedRun]) -> Work:
    """The work under caps that is known to be needed so far."""
    return replace(work, cases=[run.case for run in runs_to_try(runs, work.results)])


def capped_runs(measured: Path) -> list[CappedRun]:
    """The configs that a file of results has measured, under caps by the planner as it is now.

    Raises:
        UserError: it has measured none, or is no such file.
    """
    instead = "name plan.json of a run without --capped"
    if not measured.is_file():
        raise UserError(f"--capped: {measured}: {'not a file' if measured.exists() else 'no such file'}; {instead}")
    results = open_results(measured, option="--capped FILE")
    compared = compare(CASES, results)
    if not compared:
        raise UserError(f"--capped: {measured} {explain_nothing_compared(results)}; {instead}")
    if unknown := unknown_shapes(results):
        say(f"--capped: {measured} {UNKNOWN_SHAPES}, which are left out: {quote_names(unknown)}")
    return cap_runs(CASES, {item.name: item.predicted.memory.reserved for item in compared})


def failures(work: Work) -> dict[str, str]:
    """Cases that failed, with the last line of their output."""
    last = ((case.name, summarize(work.results.runs(case))) for case in work.cases)
    return {name: (run["lines"] or [""])[-1] for name, run in last if run is not None and run["status"] != DONE}


def render(comparisons: Sequence[Comparison], failed: Mapping[str, str]) -> str:
    """The table, and the errors in sum: of all cases, and of those to which nothing was fitted."""
    lines = [
        "| config | held out | allocated GiB, predicted / measured | error | reserved GiB | error | step s | error |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, comparisons),
        *(f"| {name} | failed: {reason} |" for name, reason in failed.items()),
        "",
        CAPTION,
    ]
    groups = {"all": list(comparisons), "held out": [item for item in comparisons if item.is_held_out]}
    sums = []
    for title, items in groups.items():
        for name in ("allocated", "reserved", "time"):
            errors = [abs(item.errors()[name]) for item in items if name in item.errors()]
            if errors:
                median, worst = statistics.median(errors), max(errors)
                sums.append(f"| {title} | {len(errors)} | {name} | {median:.1%} | {worst:.1%} |")
    too_large = [item.errors()["reserved"] > SPARE for item in comparisons if "reserved" in item.errors()]
    above = f"Planned to reserve more than {SPARE:.0%} above what was measured: {sum(too_large)} of {len(too_large)}."
    return "\n".join([*lines, "", *SUM_TITLES, *sums, "", above] if sums else lines)


def _device_of(work: Work) -> str:
    """What configs were measured on; they need not have been yet."""
    gpus = [run["gpu"] for case in work.cases for run in work.results.runs(case) if run["status"] == DONE]
    names = {gpu["name"] for gpu in gpus if gpu["kind"] == "cuda"}
    return ", ".join(sorted(names)) or "the CPU, which has no peaks to measure and no speed to predict"


def points(comparisons: Sequence[Comparison]) -> dict[str, list[tuple[str, float, bool]]]:
    """What the picture shows: for each quantity that was measured, the errors of all configs."""
    return {
        quantity: [(item.name, item.errors()[quantity], item.is_held_out) for item in measured]
        for quantity in ("allocated", "reserved", "time")
        if (measured := [item for item in comparisons if quantity in item.errors()])
    }


def _line(item: Comparison) -> str:
    errors = {name: f"{value:+.1%}" for name, value in item.errors().items()}
    memory, time_ = item.predicted.memory, item.predicted.time
    pairs = [
        f"{memory.allocated / 2**30:.2f} / {_gib(item.allocated)}",
        errors.get("allocated", "-"),
        f"{memory.reserved / 2**30:.2f} / {_gib(item.reserved)}",
        errors.get("reserved", "-"),
        f"{f'{time_.seconds:.3f}' if time_ else '-'} / {'-' if item.seconds is None else f'{item.seconds:.3f}'}",
        errors.get("time", "-"),
    ]
    return f"| {item.name} | {'yes' if item.is_held_out else ''} | {' | '.join(pairs)} |"


def _gib(num_bytes: float | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**30:.2f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    add_quick(parser, "two tiny configs, also on a CPU: shows that it runs")
    parser.add_argument(
        "--minutes", type=positive_float, default=30, metavar="N", help="no further config begins after these"
    )
    parser.add_argument("--retry", action="store_true", help="try again what failed or, under a cap, lacked memory")
    parser.add_argument(
        "--capped", type=lambda text: Path(non_empty(text)), metavar="FILE",
        help=f"{SUITE}.json of a command without this: its configs under the memory of the smallest card on which they "
        f"are said to fit, for {CAPPED}.md and {CAPPED}.json",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=positive_int, default=1, metavar="N",
        help="configs at once on each GPU; with more than one, times are no measurement",
    )  # fmt: skip
    names = [case.name for case in (*CASES, *QUICK_CASES)]
    parser.add_argument("--measure", metavar="CONFIG", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--cap", type=positive_float, help=argparse.SUPPRESS)
    parser.add_argument("--place", default="here", help=argparse.SUPPRESS)
    parser.add_argument(
        "--output", default=Path(f"output/benchmark/{SUITE}"), type=folder_path, metavar="FOLDER",
        help=f"of {SUITE}.md, {SUITE}.json and {SUITE}.png; a command goes on with the results there",
    )  # fmt: skip
    parser.add_argument(
        "--scratch", default=Path(f"output/benchmark/files/{SUITE}"), type=folder_path, metavar="FOLDER",
        help="of random checkpoints, 40 GB, rows and runs, all made again where they lack",
    )  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Check what would else be passed over.

    Raises:
        UserError: options exclude each other, or one lacks another.
    """
    if options.cap is not None and options.measure is None:
        raise UserError("--cap: is of one config; name it with --measure, or take --capped FILE for all of FILE's")
    if options.capped is not None and options.measure is not None:
        raise UserError("--measure: runs one config, and --capped all of a file; take --cap for one, or leave one out")
    if options.capped is not None and options.quick:
        raise UserError(QUICK_CAP)


def run_suite(options: argparse.Namespace) -> None:
    """Hold the planner against measurements; `--measure`, with `--cap`, is what the suite calls itself with.

    Raises:
        UserError: options exclude each other, another command works in one of the folders, configs that are left need
            a GPU, or --capped names nothing that can be used.
    """
    check_options(options)
    output, scratch = options.output.absolute(), options.scratch.absolute()
    suite = SUITE if options.capped is None and options.cap is None else CAPPED
    results = open_results(output / f"{suite}.json", suite)
    if options.measure is not None:
        case = next(case for case in (*CASES, *QUICK_CASES) if case.name == options.measure)
        measure_case(replace(case, cap_gib=options.cap), results, Scratch(scratch, options.place), jobs=options.jobs)
        return
    _locks = lock_folder(output, key="--output"), lock_folder(scratch, key="--scratch")
    runs = [] if options.capped is None else capped_runs(options.capped)
    cases = [run.case for run in runs] or (QUICK_CASES if options.quick else CASES)
    work = Work(cases, results, scratch, options.jobs)
    effort = Effort(deadline=time.monotonic() + 60 * options.minutes, retry=options.retry)
    if runs:
        try_caps(work, runs, effort, say=say)
        return
    compare_plans(work, effort, is_quick=options.quick, say=say)

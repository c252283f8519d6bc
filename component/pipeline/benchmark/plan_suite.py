"""Predictions of the planner against measurements: run the cases, compare, print; it goes on where it stopped."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from component.artifacts.error_picture import draw_errors
from component.artifacts.lock import lock_folder
from component.artifacts.strict_json import write_atomically
from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark.device import check_device
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, CASES, QUICK_CASES, Case
from component.pipeline.benchmark.plan_measurement import Scratch, measure_cases, median_step, read_results
from component.pipeline.benchmark.plan_processes import Work, measure_alone, measure_by_loader
from component.pipeline.benchmark.process_memory import foreign_bytes
from component.pipeline.benchmark.report import quick_note
from component.planning.gpus import describe_gpu
from component.planning.plan import Plan, plan
from component.planning.read_config import DataSize, Setting, read_workload
from component.planning.shape import read_shape
from component.planning.workload import Workload
from component.runtime.command import folder_path, positive_float, positive_int

SUITE, OUTPUT, RESULTS = "plan", Path("output/benchmark/plan"), "plan.json"
#: What they were until all suites had names alike.
OLD_OUTPUT, OLD_RESULTS = Path("output/benchmark-plan"), "results.json"
OWN_PROCESS = "--own_process"
CAPTION = (
    "Measured: the peak less what earlier configs of the process had left allocated when the config was loaded, "
    "the libraries' own workspace aside. For reserved memory that is only about right: blocks are not given back "
    f"whole. With {OWN_PROCESS} nothing is left."
)
SUM_TITLES = ("| cases | number | of | median error | worst error |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Comparison:
    """A case: what was predicted and measured, less what was left over; None where it was not measured alone."""

    name: str
    is_held_out: bool
    predicted: Plan
    allocated: float | None
    reserved: float | None
    seconds: float | None

    def errors(self) -> dict[str, float]:
        """Prediction over measurement, less one."""
        pairs = {
            "allocated": (self.predicted.memory.allocated, self.allocated),
            "reserved": (self.predicted.memory.reserved, self.reserved),
            "time": (self.predicted.time.seconds if self.predicted.time else None, self.seconds),
        }
        return {name: mine / real - 1 for name, (mine, real) in pairs.items() if mine and real}


def compare_plans(
    output: Path, scratch: Path, *, quick: bool, jobs: int | None, minutes: float, say: Callable[[str], None]
) -> None:
    """Measure what is still to be measured and write plan.md and plan.png.

    Args:
        output: folder of the results.
        scratch: folder of checkpoints, which are made once, rows, runs and logs.
        jobs: processes at once on each GPU, each config having its own; None for one process for each loader.
        minutes: after which no further case begins.
    """
    check_names(output)
    work = Work(QUICK_CASES if quick else CASES, output / RESULTS, scratch)
    for case in work.pending():
        check_device(case.shape, instead="take --quick")
    deadline = time.monotonic() + 60 * minutes
    if jobs is None:
        measure_by_loader(work, deadline)
    else:
        measure_alone(work, deadline, jobs=jobs)
    results = read_results(work.results)
    compared = compare(work.cases, results)
    table = render(compared, failures(work.cases, results))
    if quick:
        table = f"{quick_note('tiny models', _device_of(results))}\n\n{table}"
    write_atomically(output / f"{SUITE}.md", table + "\n")
    draw_errors(points(compared), output / f"{SUITE}.png")
    say(table)


def check_names(output: Path) -> None:
    """Check that no results are left under the names that they once had.

    Raises:
        UserError: there are some, and none under those that they have now.
    """
    old = [output / OLD_RESULTS, *([OLD_OUTPUT / OLD_RESULTS] if output == OUTPUT.absolute() else [])]
    found = next((path for path in old if path.is_file()), None)
    if found is not None and not (output / RESULTS).exists():
        raise UserError(
            f"{found}: results of suite plan, which are in {output / RESULTS} now; move the file there to go on with "
            "them, or elsewhere to begin anew"
        )


def compare(cases: Iterable[Case], results: Mapping[str, Any]) -> list[Comparison]:
    """Predict each measured case with the planner as it is now."""
    return [_compare(case, results[case.name]) for case in cases if "step_seconds" in results.get(case.name, {})]


def failures(cases: Iterable[Case], results: Mapping[str, Any]) -> dict[str, str]:
    """Cases that failed, with the last line of their output."""
    found = {case.name: results.get(case.name, {}) for case in cases}
    return {
        name: result["failed"][-1] if result["failed"] else "" for name, result in found.items() if "failed" in result
    }


def _compare(case: Case, result: Mapping[str, Any]) -> Comparison:
    config, shape = load_config(result["settings"]), read_shape(CASE_SHAPES[case.shape])
    assert shape is not None
    gpu = result["gpu"]
    is_cuda = gpu["kind"] == "cuda"
    capability = tuple(gpu["compute_capability"]) if is_cuda else None
    load, compute = result["precision"]
    # Results from before the loss was computed in parts do not say how it was.
    has_liger = result["loader"] == "vanilla" and config.training.use_liger_kernel is True
    setting = Setting(
        result["loader"],
        load,
        compute,
        supports_varlen=True,
        has_liger=has_liger,
        chunks_loss="loss" in result and not has_liger,
    )
    workload = _as_it_ran(read_workload(config, shape, setting, DataSize(**result["data"])), result.get("got", {}))
    card = describe_gpu(gpu["name"], gpu["total_memory_bytes"], capability) if is_cuda else None
    timed = replace(workload, sample_tokens=result["data"]["mean_tokens"]) if workload.is_packed else None
    predicted = plan(workload, card, micro_batches=config.training.gradient_accumulation_steps, timed=timed)
    left_over = foreign_bytes(result.get("left_over_bytes"))
    allocated, reserved = (
        None if peak is None else peak - left_over
        for peak in (result["peak_allocated_bytes"], result["peak_reserved_bytes"])
    )
    return Comparison(case.name, case.is_held_out, predicted, allocated, reserved, _seconds(result))


def _seconds(result: Mapping[str, Any]) -> float | None:
    """Of a step that had the GPU for itself; of older results there is only a median over the last two of four."""
    if result.get("jobs", 1) > 1:
        return None
    return median_step(result["steps"]) if "steps" in result else result["step_seconds"]


def _as_it_ran(workload: Workload, got: Mapping[str, str]) -> Workload:
    """Less what the loader did not do: older results are from before it could."""
    return replace(
        workload,
        has_fused_adapters=workload.has_fused_adapters and not got.get("fused_lora", "no").startswith("no"),
        keeps_norm_outputs=workload.keeps_norm_outputs and got.get("rmsnorm_save_output") == "True",
    )


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
    return "\n".join([*lines, "", *SUM_TITLES, *sums] if sums else lines)


def _device_of(results: Mapping[str, Any]) -> str:
    """What configs were measured on; they need not have been yet."""
    names = {result["gpu"]["name"] for result in results.values() if result.get("gpu", {}).get("kind") == "cuda"}
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
    parser.add_argument("--quick", action="store_true", help="two tiny configs, also on a CPU: shows that it runs")
    parser.add_argument(
        "--minutes", type=positive_float, default=30, metavar="N", help="no further config begins after these"
    )
    parser.add_argument(
        OWN_PROCESS, action="store_true",
        help="measure each config in a process of its own, on each GPU one at a time: reserved memory is that of the "
        "run alone; slower to begin",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=positive_int, default=1, metavar="N",
        help=f"with {OWN_PROCESS}: so many at once on each GPU, whose times are then no measurement",
    )  # fmt: skip
    parser.add_argument("--measure", nargs="+", metavar="CONFIG", help=argparse.SUPPRESS)
    parser.add_argument("--place", default="here", help=argparse.SUPPRESS)
    parser.add_argument(
        "--output", default=OUTPUT, type=folder_path, metavar="FOLDER",
        help=f"of {SUITE}.md, {SUITE}.json and {SUITE}.png; a command goes on with the results there",
    )  # fmt: skip
    parser.add_argument(
        "--scratch", default=Path(f"output/benchmark/files/{SUITE}"), type=folder_path, metavar="FOLDER",
        help="of random checkpoints, 40 GB, rows and runs, all made again where they lack",
    )  # fmt: skip


def run_suite(options: argparse.Namespace) -> None:
    """Hold the planner against measurements; `--measure` is what the suite calls itself with.

    Raises:
        UserError: --jobs without processes of their own, another command works in one of the folders, results have an
            earlier name, or configs that are left need a GPU.
    """
    output, scratch = options.output.absolute(), options.scratch.absolute()
    if options.measure is None:
        if options.jobs > 1 and not options.own_process:
            raise UserError(f"--jobs: {options.jobs} at once need processes of their own; give {OWN_PROCESS} too")
        _locks = lock_folder(output, key="--output"), lock_folder(scratch, key="--scratch")
        compare_plans(
            output, scratch, quick=options.quick, jobs=options.jobs if options.own_process else None,
            minutes=options.minutes, say=print,
        )  # fmt: skip
    else:
        cases = [case for case in (*CASES, *QUICK_CASES) if case.name in options.measure]
        deadline = time.monotonic() + 60 * options.minutes
        place = Scratch(scratch, options.place)
        measure_cases(cases, output / RESULTS, place, deadline=deadline, jobs=options.jobs)

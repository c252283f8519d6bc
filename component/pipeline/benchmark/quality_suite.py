"""What full training, LoRA and QLoRA learn on both loaders, over five seeds; gradients against float32; loss curves."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from component.artifacts.quality_picture import draw_quality
from component.pipeline.benchmark.child import run_child
from component.pipeline.benchmark.quality_cases import FULL, QUICK, Scale, Stage
from component.pipeline.benchmark.quality_measurement import STARTED, check_scratch, failed_run, measure_quality
from component.pipeline.benchmark.quality_page import pictured, render
from component.pipeline.benchmark.quality_progress import NAME, known_cases, open_results, pending_cases
from component.pipeline.benchmark.report import describe_surroundings, write_text
from component.pipeline.benchmark.results import Results
from component.pipeline.benchmark.suite import UNFINISHED
from component.runtime.command import folder_path, positive_float
from component.runtime.environment import environment_facts

REPOSITORY = Path(__file__).resolve().parents[3]
#: Shares of the time that is left: of this stage against those that follow.
TIME_SHARES: Mapping[Stage, float] = {"vanilla": 0.55, "unsloth": 0.25, "answers": 0.15, "liger": 0.05}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the suite's options."""
    parser.add_argument(
        "--minutes", type=positive_float, default=8, metavar="N", help="no further run begins after these"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps on the CPU: shows that it runs")
    parser.add_argument("--retry", action="store_true", help="try again what has failed")
    parser.add_argument(
        "--output", type=folder_path, default=Path(f"output/benchmark/{NAME}"), metavar="FOLDER",
        help=f"of {NAME}.md, {NAME}.json and {NAME}.png; a command goes on with the results there",
    )  # fmt: skip
    parser.add_argument(
        "--scratch", type=folder_path, default=Path(f"output/benchmark/files/{NAME}"), metavar="FOLDER",
        help="of the small model, rows and runs, which go with the results",
    )  # fmt: skip
    parser.add_argument("--stage", choices=list(TIME_SHARES), help=argparse.SUPPRESS)


def run_suite(options: argparse.Namespace) -> None:
    """Measure what is still to be measured, each stage in processes of its own, and write the page and the picture.

    `--stage` is what the suite calls itself with.
    """
    scale, output = QUICK if options.quick else FULL, options.output.absolute()
    scratch, file = options.scratch.absolute(), output / f"{NAME}.json"
    if options.stage is not None:
        deadline = time.monotonic() + 60 * options.minutes
        measure_quality(scale, options.stage, open_results(file), scratch, deadline=deadline)
        return
    for folder in (output, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    if options.retry:
        results = open_results(file)
        results.drop_failed(known_cases(scale, results))
    check_scratch(scale, open_results(file), scratch)
    is_whole = _run_stages(scale, options, file, scratch)
    results = open_results(file)
    draw_quality(*pictured(scale, results), output / f"{NAME}.png")
    note = "" if is_whole else UNFINISHED
    surroundings = describe_surroundings(known_cases(scale, results), results)
    print(write_text(output, NAME, [*render(scale, results), note, surroundings]))


def _run_stages(scale: Scale, options: argparse.Namespace, file: Path, scratch: Path) -> bool:
    """Returns whether everything has a result."""
    end = time.monotonic() + 60 * options.minutes
    for number, stage in enumerate(scale.stages):
        share = TIME_SHARES[stage] / sum(TIME_SHARES[later] for later in scale.stages[number:])
        deadline = time.monotonic() + share * (end - time.monotonic())
        while pending_cases(scale, open_results(file), stage) and time.monotonic() < deadline:
            if not _run_stage(scale, stage, options, scratch, deadline):
                break
    return not any(pending_cases(scale, open_results(file), stage) for stage in scale.stages)


def _run_stage(scale: Scale, stage: Stage, options: argparse.Namespace, scratch: Path, deadline: float) -> bool:
    """Measure in another process; a case that ends it is kept as failed. Returns whether anything was kept."""
    file = options.output.absolute() / f"{NAME}.json"
    before = _num_runs(open_results(file))
    command = [sys.executable, "script/benchmark.py", NAME, "--stage", stage, "--output", str(file.parent)]
    command += ["--scratch", str(scratch), "--minutes", str(max(1.0, deadline - time.monotonic()) / 60)]
    (scratch / STARTED).unlink(missing_ok=True)
    ended = run_child([*command, *(["--quick"] if options.quick else [])], log=scratch / f"{stage}.log")
    results = open_results(file)
    if ended.code:
        started = (scratch / STARTED).read_text(encoding="utf-8") if (scratch / STARTED).is_file() else ""
        pending = pending_cases(scale, results, stage)
        failed = next((case for case in pending if case.folder == started), pending[0] if pending else None)
        if failed is not None:
            results.add(failed, failed_run(ended), environment_facts(REPOSITORY))
    return _num_runs(results) > before


def _num_runs(results: Results) -> int:
    return sum(len(case["runs"]) for case in results.content["cases"])

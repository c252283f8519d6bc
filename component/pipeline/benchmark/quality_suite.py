"""What full training, LoRA and QLoRA learn on both loaders, over five seeds; gradients against float32; loss curves."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from component.artifacts.lock import lock_folder
from component.artifacts.quality_picture import draw_quality
from component.pipeline.benchmark.child import num_cores
from component.pipeline.benchmark.options import add_quick
from component.pipeline.benchmark.quality_cases import FULL, QUICK, Stage
from component.pipeline.benchmark.quality_claims import forget_claims
from component.pipeline.benchmark.quality_measurement import check_scratch, measure_quality
from component.pipeline.benchmark.quality_page import pictured, render
from component.pipeline.benchmark.quality_progress import NAME, known_cases, open_results, pending_cases
from component.pipeline.benchmark.quality_workers import Work, run_stage
from component.pipeline.benchmark.report import describe_surroundings, quick_note, write_text
from component.pipeline.benchmark.suite import UNFINISHED
from component.runtime.command import folder_path, positive_float, positive_int

#: Shares of the time that is left: of this stage against those that follow.
TIME_SHARES: Mapping[Stage, float] = {"vanilla": 0.55, "unsloth": 0.25, "answers": 0.15, "liger": 0.05}

#: At most; a process waits for the GPU or the disk at times.
PROCESSES_PER_CORE = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the suite's options."""
    parser.add_argument(
        "--minutes", type=positive_float, default=8, metavar="N", help="no further run begins after these"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N", help="processes at once, for a GPU that waits for the CPU"
    )
    add_quick(parser, "a few steps on the CPU: shows that it runs")
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
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)


def _jobs(text: str) -> int:
    """Each process loads torch and takes memory of its own: far more than there are cores bring a machine down."""
    number, most = positive_int(text), PROCESSES_PER_CORE * num_cores()
    if number > most:
        raise argparse.ArgumentTypeError(f"got {text!r}, and there are cores for {most}; give a number up to that")
    return number


def run_suite(options: argparse.Namespace) -> None:
    """Measure what is still to be measured, each stage in processes of its own, and write the page and the picture.

    `--stage` and `--worker` are what the suite calls itself with.
    """
    scale, output = QUICK if options.quick else FULL, options.output.absolute()
    scratch, file = options.scratch.absolute(), output / f"{NAME}.json"
    if options.stage is not None:
        deadline = time.monotonic() + 60 * options.minutes
        results = open_results(file)
        measure_quality(scale, options.stage, results, scratch, deadline=deadline, worker=options.worker)
        return
    # Cases to come are made of runs in the scratch folder of one command.
    _locks = lock_folder(output, key="--output"), lock_folder(scratch, key="--scratch")
    forget_claims(scratch)
    if options.retry:
        results = open_results(file)
        results.drop_failed(known_cases(scale, results))
    check_scratch(scale, open_results(file), scratch)
    is_whole = _run_stages(Work(scale, file, scratch, options.jobs, options.quick), options.minutes)
    results = open_results(file)
    draw_quality(*pictured(scale, results), output / f"{NAME}.png")
    note = "" if is_whole else UNFINISHED
    surroundings = describe_surroundings(known_cases(scale, results), results)
    made = f"a random Llama of {scale.shape['num_hidden_layers']} layers of width {scale.shape['hidden_size']}"
    quick = quick_note(f"{made}, {scale.steps} steps") if options.quick else ""
    print(write_text(output, NAME, [quick, *render(scale, results), note, surroundings]))


def _run_stages(work: Work, minutes: float) -> bool:
    """Returns whether everything has a result."""
    end, stages = time.monotonic() + 60 * minutes, work.scale.stages
    for number, stage in enumerate(stages):
        share = TIME_SHARES[stage] / sum(TIME_SHARES[later] for later in stages[number:])
        run_stage(work, stage, time.monotonic() + share * (end - time.monotonic()))
    results = open_results(work.file)
    return not any(pending_cases(work.scale, results, stage) for stage in stages)

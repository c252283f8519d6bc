"""Runs of train.py that share a process: Unsloth is imported once for all of them, which takes half a minute.

Each starts with memory given back and compiled code forgotten; what earlier ones have left all the same is measured
and taken off its peaks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import write_atomically
from component.config.batches import AUTO
from component.config.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_OUT_OF_MEMORY, MachineError, RunError
from component.pipeline.benchmark.case import Case, Rows
from component.pipeline.benchmark.child import Ended, run_child
from component.pipeline.benchmark.files import Files
from component.pipeline.benchmark.process_memory import allocated_bytes, foreign_bytes, lift_cap, release_memory
from component.pipeline.benchmark.results import Results
from component.pipeline.benchmark.runner import (
    Effort,
    child_environment,
    finished_run,
    in_a_line,
    next_wanted,
    not_started,
    wanted_cases,
)
from component.runtime.environment import REPOSITORY, environment_facts

#: What the command line calls this with.
COMMAND = ("script/benchmark.py", "runs")
JOB, STARTED, LOG = "shared.json", "started.txt", "logs/shared.log"
#: Seconds that stand for no deadline.
FOREVER = 1e9
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
#: Keys that set up cuBLAS for as long as a process lives; see component/runtime/allocator.py.
KEPT_BY_PROCESS = ("offload_embedding", "full_determinism")


def run_sharing(
    cases: Sequence[Case], results: Results, files: Files, effort: Effort, say: Callable[[str], None]
) -> bool:
    """As `runner.run_cases`, in one process until one ends it: it is out of memory, or has a defect.

    Args:
        cases: of train.py, with one model and one environment, and alike in the keys of KEPT_BY_PROCESS, which no run
            may choose by itself.

    Returns:
        Whether all cases have their runs.
    """
    for key in KEPT_BY_PROCESS:
        values = {case.settings.get(key) or False for case in cases}
        assert len(values) <= 1 and AUTO not in values, f"{key} is kept by the process"
    (files.folder / LOG).parent.mkdir(parents=True, exist_ok=True)
    surroundings = environment_facts(REPOSITORY)
    for case in wanted_cases(cases, results, effort):
        try:
            files.checkpoint(case.model)
        except MachineError as error:
            results.add(case, not_started(error), surroundings)
            continue
        before = {case.key: len(results.runs(case)) for case in cases}
        say(f"{case.name} and others in one process; log: {files.folder / LOG} ...")
        ended = _run_process(cases, results, files, effort)
        if ended.code != EXIT_DONE:
            failed = _started(files.folder, cases) or case
            results.add(failed, finished_run(failed, files.folder / "run", ended, surroundings), surroundings)
        new = [(case, run) for case in cases for run in results.runs(case)[before[case.key] :]]
        for ran, run in new:
            say(f"{ran.name}: {in_a_line(run)}")
        if not new:
            break  # there was no time left for one
    return next_wanted(cases, results, effort.repeats) is None


def _run_process(cases: Sequence[Case], results: Results, files: Files, effort: Effort) -> Ended:
    (files.folder / STARTED).unlink(missing_ok=True)
    seconds = effort.deadline - time.monotonic()
    job = {
        "results": str(results.path.absolute()), "suite": results.suite, "folder": str(files.folder),
        "tokenizer": None if files.tokenizer is None else str(files.tokenizer.absolute()),
        "directory": str(Path.cwd()), "repeats": effort.repeats, "seconds": min(seconds, FOREVER),
        "cases": [asdict(case) for case in cases],
    }  # fmt: skip
    write_atomically(files.folder / JOB, json.dumps(job, indent=1) + "\n")
    command = [sys.executable, *COMMAND, "--job", str(files.folder / JOB)]
    ended = run_child(command, log=files.folder / LOG, environment=child_environment(cases[0], files))
    results.reload()
    return ended


def _started(folder: Path, cases: Sequence[Case]) -> Case | None:
    key = (folder / STARTED).read_text(encoding="utf-8") if (folder / STARTED).is_file() else None
    return next((case for case in cases if case.key == key), None)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--job", required=True, type=Path, metavar="FILE", help="written by the suite")


def run_suite(options: argparse.Namespace) -> None:
    """Measure in this process what a job lacks, until its time is over or a run is out of memory."""
    job = json.loads(options.job.read_text(encoding="utf-8"))
    os.chdir(job["directory"])  # a model may be named by a relative path
    deadline = time.monotonic() + job["seconds"]
    files = Files(Path(job["folder"]), None if job["tokenizer"] is None else Path(job["tokenizer"]))
    cases = [case_of(item) for item in job["cases"]]
    measure_here(cases, Results(Path(job["results"]), job["suite"]), files, Effort(job["repeats"], deadline))


def case_of(item: Mapping[str, Any]) -> Case:
    """A case from its JSON."""
    rows, evaluation = Rows(**item["rows"]), item["evaluation"]
    return Case(**{**item, "rows": rows, "evaluation": None if evaluation is None else Rows(**evaluation)})


def measure_here(cases: Sequence[Case], results: Results, files: Files, effort: Effort) -> None:
    """Measure what lacks runs, one after the other; each result is kept at once.

    Raises:
        Exception: a defect of a run; the file STARTED has the key of its case.
    """
    surroundings = environment_facts(REPOSITORY)
    for case in wanted_cases(cases, results, effort):
        (files.folder / STARTED).write_text(case.key, encoding="utf-8")
        command, output = files.prepare(case)
        release_memory()
        lift_cap()
        left_over, began = allocated_bytes(), time.monotonic()
        code, lines = _train(command[command.index("--train_args_file") + 1])
        run = finished_run(case, output, Ended(code, time.monotonic() - began, None, lines), surroundings)
        foreign = foreign_bytes(left_over)
        own = {name: run[name] - foreign for name in PEAKS if run.get(name) is not None}
        results.add(case, {**run, **own, "left_over_bytes": left_over, "shares_process": True}, surroundings)
        if code == EXIT_OUT_OF_MEMORY:
            return  # what it has left may take the memory of the next one


def _train(settings: str) -> tuple[int, tuple[str, ...]]:
    """Train; gives the exit code that train.py would have, and the message of an error."""
    from component.pipeline.run import run

    try:
        run(settings, resume="never")
    except RunError as error:
        if error.exit_code == EXIT_INTERRUPTED:
            raise
        return error.exit_code, tuple(str(error).splitlines())
    return EXIT_DONE, ()

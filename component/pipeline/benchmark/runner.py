"""Runs the cases of a suite, each in a child process, and keeps every result at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import MachineError
from component.pipeline.benchmark.case import Case, file_name
from component.pipeline.benchmark.child import Ended, run_child
from component.pipeline.benchmark.files import Files, shape_of
from component.pipeline.benchmark.measured import read_run, reason_of
from component.pipeline.benchmark.results import DONE, FAILED, Results, now
from component.runtime.environment import REPOSITORY, environment_facts
from component.runtime.hardware import model_flops_utilization, peak_bf16_flops


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        repeats: runs of each case; all cases have one before one has two.
        deadline: a time of `time.monotonic()` after which no further case begins.
        retry: try cases again that have failed.
    """

    repeats: int = 1
    deadline: float = float("inf")
    retry: bool = False


def run_cases(
    cases: Sequence[Case], results: Results, files: Files, effort: Effort, say: Callable[[str], None]
) -> bool:
    """Run what has fewer runs than wanted; a case that failed or ran out of memory counts, and is not repeated.

    Returns:
        Whether all cases have their runs.
    """
    files.folder.mkdir(parents=True, exist_ok=True)
    surroundings = environment_facts(REPOSITORY)
    for case in wanted_cases(cases, results, effort):
        say(f"{case.name} ...")
        run = run_case(case, files, surroundings)
        results.add(case, run, surroundings)
        say(f"{case.name}: {in_a_line(run)}")
    return next_wanted(cases, results, effort.repeats) is None


def wanted_cases(cases: Sequence[Case], results: Results, effort: Effort) -> Iterator[Case]:
    """The cases to run, each once the results of the one before are kept; none begins after the deadline."""
    if effort.retry:
        results.drop_failed(cases)
    while (case := next_wanted(cases, results, effort.repeats)) is not None and time.monotonic() <= effort.deadline:
        yield case


def lacking_runs(cases: Sequence[Case], results: Results, effort: Effort) -> list[Case]:
    """The cases that would be run, if there was time; nothing is changed."""
    return [
        case
        for case in cases
        if next_wanted([case], results, effort.repeats) is not None
        or (effort.retry and any(run["status"] == FAILED for run in results.runs(case)))
    ]


def next_wanted(cases: Sequence[Case], results: Results, repeats: int) -> Case | None:
    """The next case to run, round by round; None where all have their runs."""
    for repeat in range(repeats):
        for case in cases:
            runs = results.runs(case)
            if len(runs) <= repeat and all(run["status"] == DONE for run in runs):
                return case
    return None


def run_case(case: Case, files: Files, surroundings: dict[str, Any]) -> dict[str, Any]:
    """Run a case once.

    Args:
        surroundings: with the `gpus` whose speed the MFU is a share of.

    Returns:
        Its result; where its checkpoint could not be made, why.

    Raises:
        UserError: its model or tokenizer is none.
    """
    try:
        command, output = files.prepare(case)
    except MachineError as error:
        return not_started(error)
    output.parent.mkdir(parents=True, exist_ok=True)
    log = files.folder / "logs" / f"{file_name(case.name)}.log"
    log.parent.mkdir(exist_ok=True)
    first_step = output / "metrics.jsonl"
    ended = run_child(command, log=log, first_step=first_step, environment=child_environment(case, files))
    return finished_run(case, output, ended, surroundings)


def child_environment(case: Case, files: Files) -> dict[str, str]:
    """Variables of the process that runs a case."""
    return {"UNSLOTH_COMPILE_LOCATION": str(files.folder / "unsloth_compiled"), **case.environment}


def finished_run(case: Case, output: Path, ended: Ended, surroundings: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a case that was run, whose output is removed.

    Args:
        surroundings: with the `gpus` whose speed the MFU is a share of.
    """
    run = {"date": now(), **read_run(case, output, ended)}
    if run["status"] == DONE:
        run["mfu"] = utilization(case, run.get("real_tokens_per_second"), surroundings)
    shutil.rmtree(output, ignore_errors=True)  # an adapter of 8B at rank 64 takes 0.7 GB
    return run


def not_started(error: MachineError) -> dict[str, Any]:
    """The result of a case whose files could not be made."""
    lines = str(error).splitlines()
    return {
        "status": FAILED, "date": now(), "exit_code": error.exit_code, "seconds": 0.0, "lines": lines,
        "reason": f"{lines[0]} {reason_of(lines[1:])}",
    }  # fmt: skip


def utilization(case: Case, tokens_per_second: float | None, surroundings: Mapping[str, Any]) -> float | None:
    """MFU of real tokens, by the parameters of the model without its adapter and the card's datasheet."""
    shape, gpus = shape_of(case.model), surroundings["gpus"]
    if shape is None or not gpus or tokens_per_second is None:
        return None
    return model_flops_utilization(
        num_parameters=shape.num_parameters,
        tokens_per_second=tokens_per_second,
        frozen_base=case.settings.get("train_mode") != "full",
        peak_flops=peak_bf16_flops(gpus[0]["name"]),
    )


def in_a_line(run: Mapping[str, Any]) -> str:
    """What came of a run."""
    if run["status"] != DONE:
        return f"{run['status']}: {run['reason']}" if run["status"] == FAILED else run["status"]
    speed, peak = run.get("real_tokens_per_second"), run.get("peak_allocated_bytes")
    parts = [f"{speed:,.0f} tokens/s" if speed else "", f"{peak / 2**30:.2f} GiB" if peak else ""]
    return ", ".join([*filter(None, parts), f"{run['seconds']:.0f} s"])

"""The processes that measure configs of suite `plan`: one for each loader, or one for each config."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from component.pipeline.benchmark.child import INTERVAL, Child, Ended, child_share, end_children
from component.pipeline.benchmark.plan_cases import Case
from component.pipeline.benchmark.plan_measurement import Scratch, keep_result, read_results
from component.runtime.environment import nvidia_gpus

LOADERS = ("vanilla", "unsloth")


@dataclass(frozen=True)
class Work:
    """What the processes work on.

    Attributes:
        results: file of the results.
        scratch: folder of checkpoints, rows, runs and logs.
    """

    cases: Sequence[Case]
    results: Path
    scratch: Path

    def pending(self) -> list[Case]:
        """Cases that have no result, failures counting as one."""
        done = read_results(self.results)
        return [case for case in self.cases if case.name not in done]


def measure_by_loader(work: Work, deadline: float) -> None:
    """Measure the configs of each loader in one process; another goes on where one ends.

    Args:
        deadline: a time of `time.monotonic()` after which no config begins; each loader gets its share until then.
    """
    for number, loader in enumerate(LOADERS):
        until = time.monotonic() + (deadline - time.monotonic()) / (len(LOADERS) - number)
        while time.monotonic() < until:
            pending = [case for case in work.pending() if case.loader == loader]
            if not pending:
                break
            place = Scratch(work.scratch, loader)
            ended = _wait_for(_start(work, pending, place, until))
            if ended.code:
                name = place.started()
                _keep_failure(work, next((case for case in pending if case.name == name), pending[0]), ended)


def measure_alone(work: Work, deadline: float, *, jobs: int = 1) -> None:
    """Measure each config in a process of its own.

    Args:
        deadline: a time of `time.monotonic()` after which no config begins.
        jobs: processes at once on each GPU.
    """
    pending, gpus = iter(work.pending()), visible_gpus() or [None]
    at_work: dict[int, tuple[Case, Child]] = {}
    try:
        while True:
            for number in range(jobs * len(gpus)):
                if number in at_work or time.monotonic() > deadline:
                    continue
                case = next(pending, None)
                if case is not None:
                    place = Scratch(work.scratch, f"process-{number}")
                    environment = child_share(jobs * len(gpus), number, place.folder)
                    gpu = gpus[number % len(gpus)]
                    environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
                    at_work[number] = case, _start(work, [case], place, deadline, environment, jobs)
            if not at_work:
                return
            time.sleep(INTERVAL)
            for number in [number for number, (_, child) in at_work.items() if child.has_ended()]:
                case, child = at_work.pop(number)
                if child.ended().code:
                    _keep_failure(work, case, child.ended())
    finally:
        end_children(child for _, child in at_work.values())


def visible_gpus() -> Sequence[str | None]:
    """What CUDA_VISIBLE_DEVICES may name, one after the other; empty where there is no GPU."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    all_of_them = [str(number) for number in range(len(nvidia_gpus()))]
    return all_of_them if chosen is None else list(filter(None, chosen.split(","))) if all_of_them else []


def _start(
    work: Work,
    cases: Sequence[Case],
    place: Scratch,
    deadline: float,
    environment: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> Child:
    minutes = max(0.0, deadline - time.monotonic()) / 60
    command = [sys.executable, "script/benchmark.py", "plan", "--measure", *(case.name for case in cases)]
    command += ["--output", str(work.results.parent), "--scratch", str(work.scratch), "--place", place.name]
    command += ["--minutes", str(max(1e-3, minutes)), "--jobs", str(jobs)]
    place.folder.mkdir(parents=True, exist_ok=True)
    place.forget()
    return Child(command, log=place.folder / "log.txt", environment=environment)


def _wait_for(child: Child) -> Ended:
    try:
        while not child.has_ended():
            time.sleep(INTERVAL)
    finally:
        end_children([child])
    return child.ended()


def _keep_failure(work: Work, case: Case, ended: Ended) -> None:
    keep_result(work.results, case, {"failed": list(ended.lines)})

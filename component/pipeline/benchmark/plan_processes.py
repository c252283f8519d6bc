"""The processes that measure configs of suite `plan`, each its own: what one leaves on a GPU is no part of another."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.pipeline.benchmark.child import INTERVAL, Child, Ended, child_share, end_children
from component.pipeline.benchmark.measured import status_of
from component.pipeline.benchmark.plan_cases import Case
from component.pipeline.benchmark.plan_measurement import Scratch
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY, Results, failed_run
from component.planning.gpus import GIB
from component.runtime.environment import REPOSITORY, environment_facts, nvidia_gpus

#: How a run ended that `--retry` takes again; a neighbour on the card may have had the memory.
RETRIED = (FAILED, OUT_OF_MEMORY)


@dataclass(frozen=True)
class Work:
    """What the processes work on.

    Attributes:
        scratch: folder of checkpoints, rows, runs and logs.
        jobs: processes at once on each GPU.
    """

    cases: Sequence[Case]
    results: Results
    scratch: Path
    jobs: int = 1

    def pending(self, *, retry: bool = False) -> list[Case]:
        """Cases that have no result.

        Args:
            retry: whether failures count as none; else they do as one.
        """
        self.results.reload()
        ignored = RETRIED if retry else ()
        return [case for case in self.cases if all(run["status"] in ignored for run in self.results.runs(case))]

    def forget_failures(self) -> None:
        """Drop the results that `--retry` is to take again."""
        self.results.drop_failed(self.cases, RETRIED)


def measure_pending(work: Work, deadline: float, say: Callable[[str], None]) -> None:
    """Measure what has no result; a case whose process fails has that as its result.

    Args:
        deadline: a time of `time.monotonic()` after which no case begins.
        say: told of each case that has ended.
    """
    pending = iter(work.pending())
    gpus: Sequence[str | None] = visible_gpus() or [None]
    at_work: dict[int, tuple[Case, Child]] = {}
    try:
        while True:
            for number in range(work.jobs * len(gpus)):
                if number not in at_work and time.monotonic() <= deadline:
                    case = next(pending, None)
                    if case is not None:
                        at_work[number] = case, _start(work, case, number, gpus)
            if not at_work:
                return
            time.sleep(INTERVAL)
            for number in [number for number, (_, child) in at_work.items() if child.has_ended()]:
                case, child = at_work.pop(number)
                ended = child.ended()
                if ended.code:
                    work.results.add(case, _ended_badly(case, ended), environment_facts(REPOSITORY))
                work.results.reload()
                say(f"{case.name}: {_in_a_line(work.results.runs(case))}")
    finally:
        end_children(child for _, child in at_work.values())


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name, one after the other; empty where there is no GPU."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    all_of_them = [str(number) for number in range(len(nvidia_gpus()))]
    return all_of_them if chosen is None else list(filter(None, chosen.split(","))) if all_of_them else []


def smallest_visible_gib() -> float:
    """Memory of the smallest card that processes may see, as its driver's tool tells; infinite where it does not.

    Where CUDA_VISIBLE_DEVICES names others than numbers, all cards of the machine count.
    """
    gpus, visible = nvidia_gpus(), [int(name) for name in visible_gpus() if str(name).isdecimal()]
    seen = [gpus[number] for number in visible if number < len(gpus)] or gpus
    sizes = [re.fullmatch(r"(\d+) MiB", gpu["memory"]) for gpu in seen]
    return min((int(size[1]) / 1024 for size in sizes if size), default=math.inf)


def _in_a_line(runs: Sequence[Mapping[str, Any]]) -> str:
    """How the last of them ended."""
    run = runs[-1] if runs else {"status": FAILED}
    reserved, seconds = run.get("peak_reserved_bytes"), run.get("seconds")
    parts = [f"{reserved / GIB:.2f} GiB reserved"] if reserved else []
    parts += [f"{seconds['all']:.0f} s"] if seconds else []
    return ", ".join(parts) if run["status"] == DONE and parts else run["status"]


def _ended_badly(case: Case, ended: Ended) -> dict[str, Any]:
    """The result; lack of memory says something of a config under a cap alone, and else is a failure."""
    run = failed_run(ended)
    return run if case.cap_gib is None else {**run, "status": status_of(ended)}


def _start(work: Work, case: Case, number: int, gpus: Sequence[str | None]) -> Child:
    place = Scratch(work.scratch, f"process-{number}")
    place.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "script/benchmark.py", "plan", "--measure", case.config, "--jobs", str(work.jobs)]
    command += [] if case.cap_gib is None else ["--cap", str(case.cap_gib)]
    command += ["--output", str(work.results.path.parent), "--scratch", str(work.scratch), "--place", place.name]
    environment = child_share(work.jobs * len(gpus), number, place.folder)
    gpu = gpus[number % len(gpus)]
    environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    return Child(command, log=place.folder / "log.txt", environment=environment)

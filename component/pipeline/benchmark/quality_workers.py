"""The processes that measure a stage of suite `quality`: as many as are asked for, each going from case to case."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from component.pipeline.benchmark.child import INTERVAL, Child, Ended, child_share, end_children
from component.pipeline.benchmark.quality_cases import Scale, Stage
from component.pipeline.benchmark.quality_claims import NO_WORKER, claim_first, claimed_by
from component.pipeline.benchmark.quality_progress import NAME, open_results, pending_cases, unlocks_others
from component.pipeline.benchmark.results import failed_run
from component.runtime.environment import REPOSITORY, environment_facts


@dataclass(frozen=True)
class Work:
    """What the processes work on.

    Attributes:
        file: of the results.
        scratch: of the small model, rows and runs.
        jobs: processes at once.
    """

    scale: Scale
    file: Path
    scratch: Path
    jobs: int
    is_quick: bool


def run_stage(work: Work, stage: Stage, deadline: float) -> None:
    """Measure a stage; a case that ends its process is kept as failed, and another process goes on.

    Args:
        deadline: a time of `time.monotonic()` after which no case begins.
    """
    pending = pending_cases(work.scale, open_results(work.file), stage)
    num_workers = work.jobs if any(map(unlocks_others, pending)) else min(work.jobs, len(pending))
    children: dict[int, Child] = {}
    try:
        for worker in range(num_workers):
            children[worker] = _start(work, stage, worker, deadline)
        while children:
            time.sleep(INTERVAL)
            for worker in [worker for worker, child in children.items() if child.has_ended()]:
                ended = children.pop(worker).ended()
                if ended.code and _keep_failure(work, stage, worker, ended) and time.monotonic() < deadline:
                    children[worker] = _start(work, stage, worker, deadline)
    finally:
        end_children(children.values())


def _start(work: Work, stage: Stage, worker: int, deadline: float) -> Child:
    command = [sys.executable, "script/benchmark.py", NAME, "--stage", stage, "--worker", str(worker)]
    command += ["--output", str(work.file.parent), "--scratch", str(work.scratch)]
    command += ["--minutes", str(max(1.0, deadline - time.monotonic()) / 60), *(["--quick"] if work.is_quick else [])]
    log = work.scratch / f"{stage}-{worker}.log"
    return Child(command, log=log, environment=child_share(work.jobs, worker, work.scratch))


def _keep_failure(work: Work, stage: Stage, worker: int, ended: Ended) -> bool:
    """Keep the case of a process that did not end well as failed; of one that had none, the next that nobody has.

    Returns:
        Whether there was one, and something is left to do.
    """
    results = open_results(work.file)
    pending = pending_cases(work.scale, results, stage)
    failed = claimed_by(work.scratch, pending, worker) or claim_first(work.scratch, pending, NO_WORKER)
    if failed is None:
        return False
    results.add(failed, failed_run(ended), environment_facts(REPOSITORY))
    return bool(pending_cases(work.scale, results, stage))

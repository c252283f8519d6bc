"""Processes of suite quality beside one another: each case once, failures with their case, nothing left at work."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.pipeline.benchmark import quality_workers
from component.pipeline.benchmark.child import Child, child_share, end_children
from component.pipeline.benchmark.quality_cases import FULL, QUICK, answers_case, base_case, gradient_cases, rate_cases
from component.pipeline.benchmark.quality_claims import (
    claim_first,
    claimed_by,
    forget_claims,
    join_scratch,
)
from component.pipeline.benchmark.quality_progress import known_cases, open_results
from component.pipeline.benchmark.quality_rows import write_rows
from component.pipeline.benchmark.quality_workers import Work, run_stage
from component.pipeline.benchmark.results import DONE, FAILED

#: The suite's own process, whose cases are measured by this instead; a base takes long enough for others to wait.
FAKE = """
import os, runpy, sys, time
from pathlib import Path
from component.pipeline.benchmark import quality_measurement

def measure(case, folder):
    with open(folder / "measured.txt", "a") as file:
        file.write(f"{case.kind} {case.folder}\\n")
    time.sleep(0.5 if case.kind == "base" else 0.02)
    if (case.kind, case.name, case.seed) == ("score", "full", 1):
        print("it broke", flush=True)
        os._exit(9)
    names = ("last_loss", "eval_loss", "loss", "error", "cosine", "worst_error")
    counts = {"num_parameters": 1, "num_exact": 1, "num_questions": 2}
    return {**counts, **dict.fromkeys(names, 0.5), "losses": [1.0], "threads": os.environ.get("OMP_NUM_THREADS")}

quality_measurement.MEASURES = dict.fromkeys(quality_measurement.MEASURES, measure)
sys.path.insert(0, "script")
runpy.run_path("script/benchmark.py", run_name="__main__")
"""


def run_stages(folder: Path, jobs: int) -> Work:
    work = Work(QUICK, folder / "quality.json", folder, jobs, is_quick=True)
    forget_claims(folder)
    for stage in ("vanilla", "answers"):
        run_stage(work, stage, time.monotonic() + 60)
    return work


def test_each_case_is_measured_once_and_the_one_that_ends_its_process_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fake(command: list[str], **others: Any) -> Child:
        return Child([sys.executable, "-c", FAKE, *command[2:]], **others)

    monkeypatch.setattr(quality_workers, "Child", fake)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    results = open_results(run_stages(tmp_path, jobs=3).file)
    known = [case for case in known_cases(QUICK, results) if case.stage != "unsloth"]
    assert all(len(results.runs(case)) == 1 for case in known)
    measured = Counter((tmp_path / "measured.txt").read_text(encoding="utf-8").splitlines())
    assert measured == Counter(f"{case.kind} {case.folder}" for case in known) and len(known) == 10
    failed = [(case, run) for case in known for run in results.runs(case) if run["status"] != DONE]
    ((case, run),) = failed
    assert (case.kind, case.name, case.seed) == ("score", "full", 1)
    assert (run["status"], run["code"], run["lines"]) == (FAILED, 9, ["it broke"])
    assert {run["threads"] for case in known for run in results.runs(case) if run["status"] == DONE} == {"7"}


def test_a_process_that_dies_without_a_case_costs_one_nobody_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stage ends all the same: nothing follows from a base that failed."""
    monkeypatch.setattr(
        quality_workers, "Child", lambda _command, **others: Child([sys.executable, "-c", "1 / 0"], **others)
    )
    results = open_results(run_stages(tmp_path, jobs=2).file)
    (run,) = results.runs(base_case(QUICK))
    assert run["status"] == FAILED and run["lines"][-1] == "ZeroDivisionError: division by zero"
    assert len(results.content["cases"]) == 1


def test_a_case_is_claimed_by_one(tmp_path: Path) -> None:
    """In the order of the cases; a run and the questions to it are two."""
    cases = rate_cases(FULL)
    with ThreadPoolExecutor() as pool:
        taken = list(pool.map(lambda worker: claim_first(tmp_path, cases, worker), range(len(cases) + 3)))
    assert sorted(case.folder for case in taken if case) == sorted(case.folder for case in cases)
    assert taken.count(None) == 3
    for worker, case in enumerate(taken):
        assert claimed_by(tmp_path, cases, worker) == case
    assert claim_first(tmp_path, [cases[0], answers_case(cases[0])], 99) == answers_case(cases[0])
    first, second = gradient_cases(FULL)[:2]
    assert [claim_first(tmp_path, [first, second], 0) for _ in range(3)] == [first, second, None]


def test_claims_end_with_their_command(tmp_path: Path) -> None:
    """A killed command's claims are forgotten, once the processes that it may have left are through."""
    case = base_case(QUICK)
    assert claim_first(tmp_path, [case], 0) == case
    left = join_scratch(tmp_path)
    with pytest.raises(UserError, match="--scratch: .* is in use by the last run of a command that was killed"):
        forget_claims(tmp_path, patience=0)
    assert claim_first(tmp_path, [case], 1) is None
    with ThreadPoolExecutor() as pool:
        later = pool.submit(forget_claims, tmp_path)
        del left
        later.result()
    assert claim_first(tmp_path, [case], 1) == case


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))
    assert child_share(1, 0, tmp_path) == {}
    first, second = (child_share(6, worker, tmp_path) for worker in (0, 1))
    assert first["OMP_NUM_THREADS"] == "2"
    assert first["UNSLOTH_COMPILE_LOCATION"] != second["UNSLOTH_COMPILE_LOCATION"]
    assert child_share(40, 0, tmp_path)["OMP_NUM_THREADS"] == "1"


def test_rows_that_others_read_stay_as_they_are(tmp_path: Path) -> None:
    rows, left_out = write_rows(tmp_path, 1, num_rows=120)
    before = [path.stat() for path in (rows, left_out)]
    write_rows(tmp_path, 1, num_rows=120)
    assert [path.stat() for path in (rows, left_out)] == before
    whole = rows.read_bytes()
    rows.write_bytes(whole[:100])
    write_rows(tmp_path, 1, num_rows=120)
    assert rows.read_bytes() == whole and json.loads(whole.splitlines()[-1])


def test_children_end_together(tmp_path: Path) -> None:
    children = [Child(["sleep", "60"], log=tmp_path / f"{number}.log") for number in range(2)]
    end_children(children)
    assert [child.ended().code for child in children] == [-15, -15]

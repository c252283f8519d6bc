"""Runs that share a process: what ends it is the result of one case, and the others go on in another process."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from component.pipeline.benchmark import shared_runs
from component.pipeline.benchmark.case import TRAIN, Case, Rows
from component.pipeline.benchmark.child import Ended
from component.pipeline.benchmark.files import Files
from component.pipeline.benchmark.measured import status_of
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY, Results
from component.pipeline.benchmark.runner import Effort
from component.planning.memory import LIBRARY_BYTES

FACTS = {"gpus": [], "cpu": "a CPU", "python": "3", "packages": {}, "git": {"commit": None}}


def case(name: str, model: Path) -> Case:
    return Case(name, TRAIN, {"run_name": name}, str(model), Rows("chat", 2, 64, 32), 1, {}, Rows("full", 1, 64))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the runs in each process; `broken` raises, `large` is out of memory, all leave 3 bytes behind."""
    started: list[list[str]] = []
    lifted: list[bool] = []

    def train(settings: str) -> tuple[int, tuple[str, ...]]:
        assert lifted.pop()  # the cap of the run before
        name = json.loads(Path(settings).read_text())["run_name"]
        started[-1].append(name)
        if name == "broken":
            raise RuntimeError("it broke")
        return (4, ("out of memory",)) if name == "large" else (0, ())

    def finish(_case: Case, _output: Path, ended: Ended, _facts: Any) -> dict[str, Any]:
        status = status_of(ended)
        peak = {"peak_allocated_bytes": 10, "peak_reserved_bytes": None} if status == DONE else {}
        return {"status": status, "date": "2026-11-28", "seconds": 1.0, "reason": "".join(ended.lines), **peak}

    def run_child(command: Sequence[str], *, log: Path, environment: Any) -> Ended:
        assert tuple(command[1:3]) == shared_runs.COMMAND and "UNSLOTH_COMPILE_LOCATION" in environment
        started.append([])
        try:
            shared_runs.run_suite(argparse.Namespace(job=Path(command[-1])))
        except RuntimeError as error:
            return Ended(1, 1.0, None, (str(error),))
        return Ended(0, 1.0, None, ())

    monkeypatch.setattr(shared_runs, "_train", train)
    monkeypatch.setattr(shared_runs, "lift_cap", lambda: lifted.append(True))
    monkeypatch.setattr(shared_runs, "finished_run", finish)
    monkeypatch.setattr(shared_runs, "run_child", run_child)
    monkeypatch.setattr(shared_runs, "environment_facts", lambda _repository: FACTS)
    monkeypatch.setattr(shared_runs, "allocated_bytes", lambda: LIBRARY_BYTES + 3)
    return started


def test_a_process_that_ends_costs_one_case(processes: list[list[str]], tiny_model: Path, tmp_path: Path) -> None:
    names = ("first", "broken", "second", "large", "third")
    cases = [case(name, tiny_model) for name in names]
    results, files = Results(tmp_path / "x.json"), Files(tmp_path / "files")
    said: list[str] = []
    assert not shared_runs.run_sharing(cases, results, files, Effort(deadline=0.0), said.append)
    assert shared_runs.run_sharing(cases, results, files, Effort(), said.append)
    assert processes == [["first", "broken"], ["second", "large"], ["third"]]
    runs = {name: Results(tmp_path / "x.json").runs(case)[0] for name, case in zip(names, cases, strict=True)}
    assert {name: run["status"] for name, run in runs.items()} == {
        "first": DONE, "broken": FAILED, "second": DONE, "large": OUT_OF_MEMORY, "third": DONE,
    }  # fmt: skip
    assert runs["broken"]["reason"] == "it broke" and "broken: failed: it broke" in said
    assert runs["first"]["peak_allocated_bytes"] == 7 and runs["first"]["peak_reserved_bytes"] is None
    assert shared_runs.run_sharing(cases, results, files, Effort(), said.append) and len(processes) == 3
    assert shared_runs.run_sharing(cases, results, files, Effort(repeats=2, retry=True), said.append)
    assert processes[3:] == [["broken"], ["first", "second", "third"]]


@pytest.mark.parametrize("key", shared_runs.KEPT_BY_PROCESS)
@pytest.mark.parametrize("values", [(False, True), ("auto", "auto")])
def test_what_sets_up_a_process_is_not_mixed(values: tuple[Any, ...], key: str, tmp_path: Path) -> None:
    cases = [replace(case("any", tmp_path), settings={key: value}) for value in values]
    with pytest.raises(AssertionError, match=f"{key} is kept by the process"):
        shared_runs.run_sharing(cases, Results(tmp_path / "x.json"), Files(tmp_path), Effort(deadline=0.0), print)


def test_a_case_is_the_same_on_the_other_side(tmp_path: Path) -> None:
    one = case("one", tmp_path)
    assert shared_runs.case_of(json.loads(json.dumps(asdict(one)))) == one

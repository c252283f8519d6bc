"""The measuring suites of script/benchmark.py with --quick: every program that they run, its result and the report.

Children run in this process, where torch is loaded already; one suite is run as a user runs it.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from component.config.errors import RunError
from component.pipeline import run
from component.pipeline.benchmark import (
    auto_suite,
    chat_suite,
    firefly_suite,
    loader_suite,
    memory_suite,
    runner,
    shared_runs,
)
from component.pipeline.benchmark.baseline import run_baseline
from component.pipeline.benchmark.case import TRAIN
from component.pipeline.benchmark.child import Ended


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, repository: Path) -> list[str]:
    """Programs that were run as children, in this process."""
    programs: list[str] = []

    def run_here(command: Sequence[str], *, log: Path, first_step: Path, environment: Any) -> Ended:
        program, arguments = command[1], list(command[2:])
        programs.append(program)
        if program == TRAIN:
            try:
                run(arguments[arguments.index("--train_args_file") + 1])
            except RunError as error:
                return Ended(error.exit_code, 1.0, None, tuple(str(error).splitlines()))
            return Ended(0, 1.0, 0.5, ())
        measure = runpy.run_path(str(repository / program))["measure"]
        return Ended(run_baseline(program, measure, arguments), 1.0, 0.5, ())

    def share_here(command: Sequence[str], *, log: Path, environment: Any) -> Ended:
        assert tuple(command[1:3]) == shared_runs.COMMAND
        programs.append("runs")
        directory = Path.cwd()
        shared_runs.run_suite(argparse.Namespace(job=Path(command[-1])))
        monkeypatch.chdir(directory)
        return Ended(0, 1.0, None, ())

    monkeypatch.setattr(runner, "run_child", run_here)
    monkeypatch.setattr(shared_runs, "run_child", share_here)
    return programs


@pytest.fixture
def quick(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs a suite with --quick on the tests' model; gives its output folder."""

    def run_suite(module: ModuleType, *arguments: str) -> Path:
        parser = argparse.ArgumentParser()
        module.add_options(parser)
        folders = ["--output", str(tmp_path / "output"), "--scratch", str(tmp_path / "scratch")]
        module.run_suite(parser.parse_args(["--quick", "--model", str(tiny_model), *folders, *arguments]))
        return tmp_path / "output"

    return run_suite


def cases_of(output: Path, suite: str) -> list[dict[str, Any]]:
    """What the JSON of a suite holds, after a look at its picture."""
    assert (output / f"{suite}.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((output / f"{suite}.json").read_text(encoding="utf-8"))
    (surroundings,) = content["surroundings"].values()
    assert surroundings["git"]["commit"] and surroundings["packages"]["torch"]
    return content["cases"]


def test_chat(ran: list[str], quick: Callable[..., Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first losses of padded and packed rows agree, though not their order; a second command runs nothing."""
    output = quick(chat_suite)
    cases = cases_of(output, "chat")
    assert ran == ["script/baselines/bare_loop.py", TRAIN]
    (padded,), (packed,) = (case["runs"] for case in cases)
    assert {padded["status"], packed["status"]} == {"done"}, cases
    assert padded["first_loss"] == pytest.approx(packed["first_loss"], abs=0.1)
    assert padded["padded_tokens_per_second"] > padded["real_tokens_per_second"] > 0
    assert packed["attention"] == "SDPA with a dense mask"
    quick(chat_suite)
    assert len(ran) == 2
    said = capsys.readouterr().out
    assert (output / "chat.md").read_text(encoding="utf-8") in said
    assert "| Firefly's recipe, padded | " in said
    assert f"--quick: the model {tiny_model.name} of 0." in said and "on the CPU. It shows only that" in said


def test_firefly(ran: list[str], quick: Callable[..., Path]) -> None:
    """Both measure all sizes in one process, and have numbers in the table."""
    output = quick(firefly_suite)
    bare, *ours = cases_of(output, "firefly")
    assert ran == ["script/baselines/bare_loop.py", "runs"]
    assert list(bare["runs"][0]["cells"]) == ["64 x 1", "64 x 2", "128 x 1", "128 x 2"]
    assert [case["runs"][0]["status"] for case in ours] == ["done"] * 4
    table = (output / "firefly.md").read_text(encoding="utf-8")
    assert "| 128 x 2 | " in table and "not run" not in table
    assert (
        not any(word in table for word in ("published", "V100", "llama3 8b", "fp16", "QLoRA"))
        and "LoRA of rank 4" in table
    )


def test_memory(ran: list[str], quick: Callable[..., Path]) -> None:
    """Modes that a CPU can train are run; a mode that is planned alone and the longest rows stand beside them."""
    output = quick(memory_suite, "--shapes", "8B")
    cases = cases_of(output, "memory")
    assert [case["runs"][0]["status"] for case in cases] == ["done"] * 2 and ran == [TRAIN] * 2
    table = (output / "memory.md").read_text(encoding="utf-8")
    assert (
        "| QLoRA, longest row on | 24 GB | 48 GB | 80 GB | 141 GB |" in table and "| model | 16-bit LoRA | - |" in table
    )


def test_auto(ran: list[str], quick: Callable[..., Path]) -> None:
    """The best of the grid, and what `auto` chose."""
    output = quick(auto_suite)
    auto, *grid = cases_of(output, "auto")
    assert [case["runs"][0]["status"] for case in (auto, *grid)] == ["done"] * 3 and ran == [TRAIN, "runs"]
    quick(auto_suite)
    assert len(ran) == 2, "nothing is run again"
    assert grid[0]["runs"][0]["eval_loss"] > 0
    page = (output / "auto.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| 141 | "))
    speeds = {case["name"]: case["runs"][0]["median_tokens_per_second"] for case in grid}
    best = max(speeds, key=speeds.__getitem__)
    assert f"| {best} | {speeds[best]:,.0f} | " in row
    assert all(words in page for words in ("Runs are compared by the median", "an epoch of 96 rows", "lora of rank 4"))
    assert "per_device_train_batch_size=" in row


def test_loaders(ran: list[str], quick: Callable[..., Path]) -> None:
    """Rows that are full have no padding, whoever counts."""
    cases = cases_of(quick(loader_suite, "--batch", "2"), "loaders")
    assert [case["name"] for case in cases] == ["vanilla, bare loop", "vanilla, train.py"]
    for case in cases:
        (measured,) = case["runs"]
        assert measured["padded_tokens_per_second"] == pytest.approx(measured["real_tokens_per_second"])


@pytest.mark.slow
def test_as_a_user_runs_it(repository: Path, tmp_path: Path) -> None:
    """The door, a checkpoint made on the spot, and children."""
    command = [sys.executable, "script/benchmark.py", "loaders", "--quick", "--output", str(tmp_path / "output")]
    command += ["--scratch", str(tmp_path / "scratch")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [case["runs"][0]["status"] for case in cases_of(tmp_path / "output", "loaders")] == ["done", "done"]
    assert (tmp_path / "scratch/models/tiny/model.safetensors").is_file()

"""A suite at work: its folders are its own, and a model of real size needs a GPU."""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from component.config.errors import UserError
from component.pipeline.benchmark.case import TRAIN, Case, Rows
from component.pipeline.benchmark.options import add_common_options
from component.pipeline.benchmark.results import FAILED
from component.pipeline.benchmark.suite import Suite

REPOSITORY = Path(__file__).resolve().parents[3]
#: A command whose child sleeps with the standard input that it gets from it, killed as soon as that is at work.
KILLED = """
import os, signal, sys
from pathlib import Path
from component.pipeline.benchmark.child import Child
Child(["sleep", "60"], log=Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""
DATE = "2026-11-28T10:00:00+00:00"
FACTS = {"gpus": [], "cpu": "a CPU", "python": "3.12.1", "packages": {}, "git": {"commit": None}}


def suite_of(folder: Path, *arguments: str) -> Suite:
    parser = argparse.ArgumentParser()
    add_common_options(parser, "some", model="llama3 8b")
    folders = ["--output", str(folder / "out"), "--scratch", str(folder / "files")]
    return Suite("some", parser.parse_args([*folders, *arguments]))


def case_of(model: str) -> Case:
    return Case(model, TRAIN, {}, model, Rows("chat", 8, 128), 1)


REFUSED = "--model: llama3 8b has 8,030 million .* no NVIDIA GPU .* --quick"


@pytest.mark.parametrize("arguments", [[], ["--quick"]])
def test_a_model_of_real_size_needs_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Refused before gigabytes of random weights are made for it."""
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    with pytest.raises(UserError, match=REFUSED):
        suite_of(tmp_path, *arguments).measure([case_of("tiny"), case_of("llama3 8b")])
    assert not (tmp_path / "files/models").exists()


def test_what_was_measured_is_shown_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures too, but where they are to be tried again: those are refused, and not forgotten."""
    monkeypatch.setenv("PATH", "")
    suite, large = suite_of(tmp_path), case_of("llama3 8b")
    suite.results.add(large, {"status": FAILED, "date": DATE, "exit_code": 1, "reason": "x"}, FACTS)
    assert [line.is_done for line in suite.measure([large])] == [False]
    retried = suite_of(tmp_path, "--retry")
    with pytest.raises(UserError, match=REFUSED):
        retried.measure([large])
    assert len(retried.runs(large)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
@pytest.mark.parametrize(("folder", "option"), [("out", "--output"), ("files", "--scratch")])
def test_a_second_command_in_a_folder_is_refused(tmp_path: Path, folder: str, option: str) -> None:
    (tmp_path / folder).mkdir()
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(1, flush=True)"
    command = [sys.executable, "-c", f"{hold}; sys.stdin.read()", str(tmp_path / folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "1\n"
        with pytest.raises(UserError, match=f"^{option}: {tmp_path / folder} is being written by another process"):
            suite_of(tmp_path)
        other.kill()
    assert suite_of(tmp_path).results.content["cases"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is of Linux")
def test_the_child_of_a_killed_command_ends_too(tmp_path: Path) -> None:
    """Else the next command, whose locks are free then, runs beside it in the same folders."""
    reading, held = os.pipe()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log")]
    assert subprocess.run(command, stdin=held, cwd=REPOSITORY, check=False).returncode == -9
    os.close(held)
    assert select.select([reading], [], [], 20)[0], "the child has its end of the pipe still"
    assert os.read(reading, 1) == b""
    os.close(reading)

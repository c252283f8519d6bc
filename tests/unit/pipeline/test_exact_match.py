"""script/evaluate.py: rows that cannot be asked are named and counted, and the others are asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ASK, REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
GOOD = json.dumps({"messages": [ASK, REPLY]})
#: Lines that cannot be asked, and why.
BAD = {
    json.dumps({"messages": [ASK, {**REPLY, "content": ""}]}): "empty answer: message 2",
    '{"messages": [': "bad JSON: expecting value, column 15",
    json.dumps({"messages": [ASK]}): "no answer at all",
    json.dumps({"messages": [ASK, REPLY, ASK]}): "no answer to compare with: the last message is user's",
    "[]": "not an object: a list",
    json.dumps({"messages": None}): "null messages",
}
COUNT = (
    "6 of {} rows cannot be used (1 empty answer, 1 bad JSON, 1 no answer at all, 1 no answer to compare with, "
    "1 not an object, 1 null messages)"
)
Evaluate = Callable[[list[str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def evaluate(
    run_python: Callable[..., subprocess.CompletedProcess[str]], tiny_model: Path, repository: Path, tmp_path: Path
) -> Evaluate:
    """Ask the tiny model the lines of a file."""

    def ask(lines: list[str]) -> subprocess.CompletedProcess[str]:
        (tmp_path / "asked.jsonl").write_text("".join(f"{line}\n" for line in lines))
        options = ["--model", str(tiny_model), "--data", "asked.jsonl", "--max_new_tokens", "2", "--use_cpu"]
        command = [sys.executable, str(repository / "script/evaluate.py"), *options, "--json", "score.json"]
        return run_python(command, cwd=tmp_path)

    return ask


def first_five(*, first_line: int) -> list[str]:
    places = enumerate(list(BAD.values())[:5], start=first_line)
    return [*(f"asked.jsonl:{line}: {reason}" for line, reason in places), "and 1 more"]


def test_bad_rows_are_named_and_the_others_asked(evaluate: Evaluate, tmp_path: Path) -> None:
    finished = evaluate([GOOD, *BAD, GOOD])
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert [line.partition(" expected")[0] for line in lines[:2]] == ["asked.jsonl:1", "asked.jsonl:8"]
    assert lines[2:] == [
        *first_five(first_line=2)[:-1],
        "and 1 more; --json FILE lists all",
        f"{COUNT.format(8)} and were not asked",
        "0 of 2 answers exactly right",
    ]
    written = json.loads((tmp_path / "score.json").read_text())
    assert len(written["examples"]) == written["questions"] == 2
    assert written["failures"] == [
        {"source": f"asked.jsonl:{line}", "reason": reason} for line, reason in enumerate(BAD.values(), start=2)
    ]


def test_no_row_that_can_be_asked(evaluate: Evaluate) -> None:
    finished = evaluate([*BAD])
    assert finished.returncode == 2
    summary = f"--data: no usable row: {COUNT.format(6)}; correct the data"
    assert finished.stderr.splitlines()[-7:] == [summary, *first_five(first_line=1)]
    finished = evaluate([])
    assert finished.returncode == 2
    assert finished.stderr.endswith("--data: asked.jsonl holds no rows; put data there or name another file\n")

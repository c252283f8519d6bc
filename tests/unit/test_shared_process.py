"""The process that tests on a GPU share: it answers in order, tells what failed, and then there is a new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_process import SharedProcess

PROGRAM = """
import os, sys
asked = []
def answer(number, end=None):
    print("asked for", number)
    asked.append(number)
    if end == "fail":
        raise ValueError(f"{number} is wrong")
    if end == "sleep":
        import time; time.sleep(60)
    return {"pid": os.getpid(), "arguments": sys.argv[1:], "asked": asked, "word": os.environ["WORD"]}
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SharedProcess]:
    process = SharedProcess(PROGRAM, "one", "two", cwd=tmp_path, env={**os.environ, "WORD": "here"})
    yield process
    process.close()


def test_one_process_answers_in_order(process: SharedProcess, capsys: pytest.CaptureFixture) -> None:
    first, second = process.ask(number=1), process.ask(number=2)
    assert first["pid"] == second["pid"] != os.getpid() and first["arguments"] == ["one", "two"]
    assert first["word"] == "here" and second["asked"] == [1, 2]
    process.close()
    assert capsys.readouterr().out.split("\n")[0] == "asked for 1"


@pytest.mark.parametrize(("end", "timeout", "told"), [("fail", 60, "ValueError: 3 is wrong"), ("sleep", 1, "number")])
def test_what_follows_a_failure_has_a_new_process(process: SharedProcess, end: str, timeout: int, told: str) -> None:
    before = process.ask(number=1)
    with pytest.raises(AssertionError, match=told):
        process.ask(number=3, end=end, timeout=timeout)
    after = process.ask(number=4)
    assert after["pid"] != before["pid"] and after["asked"] == [4]


@pytest.mark.parametrize("program", ["import nothing_of_this_name", "import os; os._exit(0)"])
def test_a_program_that_ends_by_itself(program: str, tmp_path: Path) -> None:
    process = SharedProcess(program, cwd=tmp_path, env=os.environ)
    with pytest.raises(AssertionError, match="no answer"):
        process.ask(number=1)
    process.close()


def test_a_bad_end_is_told(tmp_path: Path) -> None:
    program = "import atexit, os; atexit.register(os._exit, 3)\ndef answer():\n    return None"
    process = SharedProcess(program, cwd=tmp_path, env=os.environ)
    assert process.ask() is None
    with pytest.raises(AssertionError, match="ended with 3"):
        process.close()

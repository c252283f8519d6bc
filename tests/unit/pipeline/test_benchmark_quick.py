"""--quick has its own sizes: options that it would pass over are refused, in every suite by the same check."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from component.config.errors import UserError
from component.pipeline.benchmark import (
    auto_suite,
    chat_suite,
    data_suite,
    firefly_suite,
    loader_suite,
    memory_suite,
    plan_suite,
    quality_suite,
)
from component.pipeline.benchmark.options import check_quick

#: Suite -> arguments that --quick has its own values for, those that are the default among them.
REPLACED: tuple[tuple[ModuleType, str], ...] = (
    (auto_suite, "--caps 8"),
    (auto_suite, "--micro_batches 1 4 8"),
    (chat_suite, "--steps 20"),
    (chat_suite, "--max_seq_length 512"),
    (data_suite, "--rows 20000"),
    (data_suite, "--repeats 2"),
    (firefly_suite, "--setups Firefly"),
    (firefly_suite, "--lengths 512"),
    (firefly_suite, "--batches 1"),
    (firefly_suite, "--steps 3"),
    (firefly_suite, "--accumulation 2"),
    (loader_suite, "--loaders unsloth"),
    (loader_suite, "--max_seq_length 512"),
    (loader_suite, "--steps 20"),
    (memory_suite, "--modes qlora"),
)
#: Suite -> arguments that count beside --quick.
READ: tuple[tuple[ModuleType, str], ...] = (
    (auto_suite, "--points packed --model tiny --repeats 2"),
    (chat_suite, "--batch 2 --rows full --minutes 1"),
    (firefly_suite, "--model tiny"),
    (loader_suite, "--batch 2"),
    (memory_suite, "--shapes 8B --accumulation 1"),
    (plan_suite, "--jobs 2"),
    (quality_suite, "--minutes 1 --retry"),
)
REQUIRED = {data_suite: ["--tokenizer", "t"]}


def check(suite: ModuleType, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    suite.add_options(parser)
    given = [*REQUIRED.get(suite, []), *arguments]
    check_quick(parser, parser.parse_args(given), given)


@pytest.mark.parametrize(("suite", "arguments"), REPLACED)
def test_what_quick_would_pass_over_is_refused(suite: ModuleType, arguments: str) -> None:
    option = arguments.partition(" ")[0]
    with pytest.raises(UserError, match=f"^--quick: has its own values for {option}; leave out those, or --quick$"):
        check(suite, "--quick", *arguments.split())
    check(suite, *arguments.split())


@pytest.mark.parametrize(("suite", "arguments"), READ)
def test_other_options_count_beside_quick(suite: ModuleType, arguments: str) -> None:
    check(suite, "--quick", *arguments.split())


def test_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check(loader_suite, "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "not beside --loaders, --max_seq_length, --steps, for which it has its own values" in said


@pytest.mark.parametrize("suite", ["auto", "chat"])
def test_the_command(
    suite: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All at once, before anything is made."""
    options = {"auto": ["--caps", "8", "--micro_batches", "4"], "chat": ["--max_seq_length", "8", "--steps=3"]}[suite]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the script adds to
    monkeypatch.setattr(sys, "argv", ["script/benchmark.py", suite, "--quick", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / "script/benchmark.py"), run_name="__main__")
    names = {"auto": "--caps, --micro_batches", "chat": "--max_seq_length, --steps"}[suite]
    line = f"--quick: has its own values for {names}; leave out those, or --quick\n"
    assert (ended.value.code, *capsys.readouterr()) == (2, "", line)
    assert list(tmp_path.iterdir()) == []

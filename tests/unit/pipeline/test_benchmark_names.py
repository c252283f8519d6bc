"""Names of what a suite measures hold commas: help and errors list them so that they can be pasted into a shell."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Collection

import pytest

from component.pipeline.benchmark import chat_suite, firefly_suite
from component.pipeline.benchmark.chat_cases import VARIANTS
from component.pipeline.benchmark.firefly_cases import SETUPS


@pytest.mark.parametrize(
    ("add_options", "option", "names"),
    [
        (chat_suite.add_options, "--cases", [name for variants in VARIANTS.values() for name in variants]),
        (firefly_suite.add_options, "--setups", list(SETUPS)),
    ],
)
def test_names_can_be_pasted(
    add_options: Callable[[argparse.ArgumentParser], None],
    option: str,
    names: Collection[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    listed = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith('  "')]
    assert sorted(name for (name,) in listed) == sorted(names)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([option, "nope"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"argument {option}: got 'nope'; use one or more of \"Firefly" in said
    assert set(shlex.split(said.partition("one or more of ")[2].replace(";", " "))) == set(names)

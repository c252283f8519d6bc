"""Options that every command checks alike, and what the commands for answering refuse before they load anything."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from component.runtime.command import Distinct, OneFile, non_empty, positive_float, positive_int

REPOSITORY = Path(__file__).resolve().parents[3]


def test_values_of_options() -> None:
    assert positive_int("12") == 12
    for text in ("0", "-1", "x", "1.5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="give a whole number above 0"):
            positive_int(text)
    assert positive_float("0.5") == 0.5
    for text in ("0", "-1", "nan", "inf", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="give a number above 0"):
            positive_float(text)
    assert non_empty("a") == "a"
    with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
        non_empty(" ")


def test_values_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--caps", nargs="+", type=positive_float, action=Distinct)
    assert parser.parse_args(["--caps", "8", "12"]).caps == [8.0, 12.0]
    with pytest.raises(SystemExit):
        parser.parse_args(["--caps", "8", "12", "8.0"])
    assert "argument --caps: got 8.0 twice; name each once" in capsys.readouterr().err


EVALUATE = ["script/evaluate.py", "--model", "m", "--data", "d"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["script/chat.py", "--model", ""], "argument --model: is empty"),
        (["script/chat.py", "--model", "m", "--max_new_tokens", "0"], "argument --max_new_tokens: got '0'"),
        ([*EVALUATE, "--max_new_tokens", "-5"], "argument --max_new_tokens: got '-5'"),
        ([*EVALUATE, "--json", "{folder}"], "--json {folder}: a folder; name a file in it"),
        ([*EVALUATE, "--json", "{folder}/a/b"], "--json {folder}/a/b: {folder}/a does not exist; make that folder"),
        ([*EVALUATE, "--json", "{folder}/" + "x" * 5000], "--json: not a path (File name too long)"),
    ],
)
def test_refused_at_once(tmp_path: Path, command: list[str], message: str) -> None:
    command = [part.format(folder=tmp_path) for part in command]
    process = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 2
    assert message.format(folder=tmp_path) in process.stderr
    assert "Traceback" not in process.stderr


def test_a_second_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train_args_file", action=OneFile)
    assert parser.parse_args(["--train_args_file", "a.json"]).train_args_file == "a.json"
    with pytest.raises(SystemExit):
        parser.parse_args(["--train_args_file", "a.json", "--train_args_file", "b.json"])
    assert 'argument --train_args_file: is there twice; give one file, and name the other under its "base"' in (
        capsys.readouterr().err
    )

"""Command lines of a config and overrides: keys as options and a config without its option are told how to write it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from component.runtime.config_command import parse_config_command

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIG = "train_args/demo/pretrain.json"
NAMED = ["--train_args_file", CONFIG]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train_args_file")
    parser.add_argument("--schema", action="store_true")
    parser.add_argument("overrides", nargs="*")
    return parser


def test_overrides_may_stand_anywhere(parser: argparse.ArgumentParser) -> None:
    options = parse_config_command(parser, ["seed=1", *NAMED, "learning_rate=-1", "x"], without="schema")
    assert (options.train_args_file, options.overrides) == (CONFIG, ["seed=1", "learning_rate=-1", "x"])
    assert parse_config_command(parser, ["--schema"], without="schema").schema


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*NAMED, "--lora_rank", "16"], "unrecognized arguments: --lora_rank 16; write it as lora_rank=16"),
        ([*NAMED, "--lora_rank=16"], "unrecognized arguments: --lora_rank=16; write it as lora_rank=16"),
        (["--lora-rank", "16", *NAMED], "unrecognized arguments: --lora-rank 16; write it as lora_rank=16"),
        (["--a.b=1", "seed=1"], "unrecognized arguments: --a.b=1; write it as a.b=1"),
        (
            [*NAMED, "--beta", "-1", "--bf16", "false", "--run_name", "a b", "seed=1"],
            "unrecognized arguments: --beta -1 --bf16 false --run_name 'a b'; write it as beta=-1 bf16=false "
            "run_name='a b'",
        ),
        (
            [*NAMED, "--bf16", "seed=1"],
            "unrecognized arguments: --bf16; a key of the config is written as lora_rank=16",
        ),
        ([*NAMED, "-z", "3"], "unrecognized arguments: -z 3; a key of the config is written as lora_rank=16"),
        (["a b.yaml", "seed=1"], "--train_args_file is missing; write --train_args_file 'a b.yaml'"),
        (["train_file=a.json"], "--train_args_file is missing; name a config such as train_args/demo/sft-qlora.json"),
    ],
)
def test_how_it_is_to_be_written(
    parser: argparse.ArgumentParser, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_config_command(parser, arguments, without="schema")
    assert ended.value.code == 2 and capsys.readouterr().err.endswith(f": error: {message}\n")


@pytest.mark.parametrize(
    "command", [["train.py", "--check"], ["script/plan.py", "--gpu", "4090"], ["script/inspect_data.py"]]
)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CONFIG], f"--train_args_file is missing; write --train_args_file {CONFIG}"),
        ([*NAMED, "--lora_rank", "16"], "unrecognized arguments: --lora_rank 16; write it as lora_rank=16"),
    ],
)
def test_every_command_of_a_config(command: list[str], arguments: list[str], message: str) -> None:
    process = subprocess.run(
        [sys.executable, *command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.endswith(f"{Path(command[0]).name}: error: {message}\n")

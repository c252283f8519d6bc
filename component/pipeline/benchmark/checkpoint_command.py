"""Makes a random checkpoint of a shape: `script/benchmark.py checkpoint`, which suites call in a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from component.config.errors import UserError
from component.pipeline.benchmark.checkpoint import write_checkpoint
from component.pipeline.benchmark.files import sizes_of
from component.pipeline.benchmark.sources import check_tokenizer
from component.runtime.command import folder_path, non_empty


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--shape", required=True, type=non_empty, metavar="NAME", help="as suites' --model")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="to copy; one is trained without it")
    parser.add_argument("--output", required=True, type=folder_path, metavar="FOLDER")


def run_suite(options: argparse.Namespace) -> None:
    """Make it.

    Raises:
        UserError: there is something in its folder, or `--tokenizer` names none.
    """
    if options.output.exists() and not (options.output.is_dir() and not any(options.output.iterdir())):
        raise UserError(f"--output: {options.output} is not an empty folder; name a new one")
    if options.tokenizer is not None:
        check_tokenizer(options.tokenizer)
    write_checkpoint(options.output, sizes_of(options.shape), options.tokenizer)
    print(f"{options.output}: random weights of {options.shape}")

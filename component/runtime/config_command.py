"""Command lines that name a config and override its keys; one that is wrong is told how it has to be written."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from component.config.layers import PARSERS

#: Of an override, where the user's own value is not known; and of a config.
OVERRIDE, CONFIG = "lora_rank=16", "train_args/demo/sft-qlora.json"


def parse_config_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None, *, without: str | None = None
) -> argparse.Namespace:
    """Parse a command line; one that is wrong ends the process as argparse does, with exit code 2.

    Args:
        parser: has the option `--train_args_file`, which it does not require itself, and `overrides` for all the rest.
        arguments: those of the process by default.
        without: name of a flag with which no config is needed.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        parser.error(_explain(arguments, unknown))
    if options.train_args_file is None and not (without and getattr(options, without)):
        files = [text for text in options.overrides if "=" not in text and Path(text).suffix.lower() in PARSERS]
        fix = f"write --train_args_file {shlex.quote(files[0])}" if files else f"name a config such as {CONFIG}"
        parser.error(f"--train_args_file is missing; {fix}")
    return options


def _explain(arguments: Sequence[str], unknown: Sequence[str]) -> str:
    """What was not understood, each option with the value after it, and how the same keys are overridden."""
    shown, overrides = [], []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument not in unknown or not argument.startswith("-"):
            continue  # after an unknown option argparse has no place for overrides either
        shown.append(argument)
        name, equals, value = argument.partition("=")
        if not equals and waiting and not waiting[0].startswith("--") and "=" not in waiting[0]:
            equals, value = "=", waiting.pop(0)
            shown.append(shlex.quote(value))
        if equals and name.startswith("--"):
            overrides.append(f"{name.removeprefix('--').replace('-', '_')}={shlex.quote(value)}")
    fix = f"write it as {' '.join(overrides)}" if overrides else f"a key of the config is written as {OVERRIDE}"
    return f"unrecognized arguments: {' '.join(shown)}; {fix}"

"""Train what a config file describes.

    python train.py --train_args_file train_args/sft/qlora/llama3-8b.json [KEY=VALUE ...]

Exit codes: 0 done, 2 config, data or environment to mend, 3 stopped by a guard, 4 out of memory, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from component.config.load import load_config
from component.config.reference import json_schema_text
from component.pipeline.describe import describe_check, describe_run
from component.pipeline.prepare import prepare
from component.pipeline.run import run_config
from component.runtime.command import OneFile, print_lines, run_command
from component.runtime.config_command import parse_config_command
from component.runtime.stopwatch import command_began


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; everything of the form KEY=VALUE overrides the config."""
    parser = argparse.ArgumentParser(description="Fine-tune a language model as a config file says.")
    parser.add_argument(
        "--train_args_file", action=OneFile, metavar="FILE", help="JSON or YAML config; docs/config.md lists its keys"
    )
    parser.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH", help="what to do with an earlier attempt"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only check the config; needs no torch, model or data")
    action.add_argument("--dry_run", action="store_true", help="also read tokenizer and data; loads no weights")
    action.add_argument("--schema", action="store_true", help="print the JSON Schema of configs for editors")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override a key of the config")
    return parse_config_command(parser, arguments, without="schema")


def main() -> int:
    """Do what the command line asks."""
    options = parse_arguments()
    if options.schema:
        print(json_schema_text())
        return 0
    config = load_config(options.train_args_file, options.overrides)
    if options.check:
        print_lines(describe_check(config))
    elif options.dry_run:
        print_lines(describe_run(prepare(config)))
    else:
        run_config(config, resume=options.resume, may_restart=True, began=command_began())
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

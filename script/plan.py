"""Predict the memory and the time of a config, and what would fit other cards. Needs no GPU, no weights and no data.

python script/plan.py --train_args_file train_args/sft/qlora/llama3-8b.json --gpu 4090
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.config.load import load_config
from component.pipeline.show_plan import PlanOutputs, show_plan
from component.runtime.command import OneFile, non_empty, print_lines, run_command
from component.runtime.config_command import parse_config_command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; everything of the form KEY=VALUE overrides the config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_args_file", type=non_empty, action=OneFile, metavar="FILE", help="as of train.py")
    parser.add_argument("--gpu", type=non_empty, metavar="NAME", help="t4, 3090, 4090, l40s, a100-80, h100, h200, ...")
    parser.add_argument("--png", type=_path, metavar="OUT", help="write the parts of the peak as a picture")
    parser.add_argument("--json", type=_path, metavar="OUT", help="write the plan as JSON")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override a key of the config")
    return parse_config_command(parser, arguments)


def _path(text: str) -> Path:
    return Path(non_empty(text))


def main() -> int:
    """Do what the command line asks; what of the config is ignored or translated comes last, as `--check` says it."""
    options = parse_arguments()
    config = load_config(options.train_args_file, options.overrides)
    print_lines(show_plan(config, options.gpu, PlanOutputs(options.png, options.json)))
    print_lines(f"notice: {notice}" for notice in config.notices)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

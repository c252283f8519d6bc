"""Show the data of a config as training will see it: samples, counts, lengths, the rows to look at. Needs no weights.

python script/inspect_data.py --train_args_file train_args/sft/qlora/llama3-8b.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.config.load import load_config
from component.pipeline.inspect_data import Inspection, inspect_data
from component.runtime.command import OneFile, non_empty, positive_int, print_lines, run_command
from component.runtime.config_command import parse_config_command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; everything of the form KEY=VALUE overrides the config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_args_file", type=non_empty, action=OneFile, metavar="FILE", help="as of train.py")
    parser.add_argument(
        "--samples", type=positive_int, default=Inspection.num_samples, metavar="N", help="how many are shown"
    )
    parser.add_argument("--row", type=non_empty, metavar="FILE:LINE", help="show only what became of this row, in full")
    parser.add_argument(
        "--json", type=_path, metavar="OUT", help="write a line with source, input_ids, labels and text a sample"
    )
    parser.add_argument("--failures", type=_path, metavar="OUT", help="write `file:line: reason` of each dropped row")
    parser.add_argument("--html", type=_path, metavar="OUT", help="write the report as a page")
    parser.add_argument("--png", type=_path, metavar="OUT", help="write the lengths as a picture")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override a key of the config")
    return parse_config_command(parser, arguments)


def _path(text: str) -> Path:
    return Path(non_empty(text))


def main() -> int:
    """Do what the command line asks."""
    options = parse_arguments()
    inspection = Inspection(
        num_samples=options.samples,
        row=options.row,
        json=options.json,
        failures=options.failures,
        html=options.html,
        png=options.png,
    )
    print_lines(inspect_data(load_config(options.train_args_file, options.overrides), inspection))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

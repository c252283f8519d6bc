"""List the prepared data and the quantized weights that are kept, or clear them.

python script/cache.py list
python script/cache.py clear 3f2a91c0
python script/cache.py clear --all
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.runtime.command import non_empty, print_lines, run_command


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser("list", help="show what is kept")
    clear = commands.add_parser("clear", help="remove what no process works with")
    chosen = clear.add_mutually_exclusive_group(required=True)
    chosen.add_argument("keys", nargs="*", default=[], type=non_empty, metavar="KEY", help="or its beginning")
    chosen.add_argument("--all", action="store_true", help="remove everything")
    for command in (show, clear):
        command.add_argument("--cache_dir", type=non_empty, help="as in a config; by default the user's own")
    return parser.parse_args()


def main() -> int:
    """Do what the command line says."""
    options = parse_arguments()
    from rich.console import Console

    from component.pipeline.cached_data import clear_cache, list_cache

    if options.command == "list":
        list_cache(options.cache_dir, Console(width=None if sys.stdout.isatty() else 200))
    else:
        print_lines(clear_cache(options.cache_dir, options.keys, everything=options.all))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

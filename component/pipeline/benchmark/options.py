"""Options that the measuring suites have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.pipeline.benchmark.files import Files
from component.pipeline.benchmark.runner import Effort
from component.pipeline.benchmark.sources import check_tokenizer
from component.runtime.command import folder_path, non_empty, positive_float, positive_int

#: Name of the shape of `--quick`.
QUICK_MODEL = "tiny"


def add_common_options(
    parser: argparse.ArgumentParser, suite: str, *, model: str | None, replaced_by_quick: Sequence[str] = ()
) -> None:
    """Add the options.

    Args:
        model: that is measured unless another is named; None where the suite has several.
        replaced_by_quick: see `add_quick`.
    """
    parser.add_argument(
        "--model", type=non_empty, default=model, metavar="FOLDER",
        help=f"a checkpoint, or a shape that gets random weights (default: {model or 'all'})",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER", help="for random weights; one is trained on sample texts without it"
    )
    parser.add_argument(
        "--repeats", type=positive_int, default=1, metavar="N", help="runs of a case; tables have medians"
    )
    parser.add_argument(
        "--minutes", type=positive_float, default=float("inf"), metavar="N", help="no further case begins after these"
    )
    parser.add_argument("--retry", action="store_true", help="try cases again that have failed")
    add_quick(parser, "a tiny model on the CPU: shows that it runs, measures nothing", replaces=replaced_by_quick)
    parser.add_argument(
        "--output", type=folder_path, default=Path(f"output/benchmark/{suite}"), metavar="FOLDER",
        help=f"of {suite}.md, {suite}.json and {suite}.png; a command goes on with the results there",
    )  # fmt: skip
    parser.add_argument(
        "--scratch", type=folder_path, default=Path("output/benchmark/files"), metavar="FOLDER",
        help="of checkpoints, rows and runs, all made again where they lack",
    )  # fmt: skip


def add_quick(parser: argparse.ArgumentParser, help: str, *, replaces: Sequence[str] = ()) -> None:
    """Add `--quick`.

    Args:
        replaces: options of the suite, in whose place it has values of its own; `check_quick` refuses them beside it.
    """
    beside = f"; not beside {', '.join(replaces)}, for which it has its own values" if replaces else ""
    parser.add_argument("--quick", action="store_true", help=help + beside)
    parser.set_defaults(replaced_by_quick=replaces)


def check_quick(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Check that no option is there that --quick would pass over.

    Args:
        parser: of the suite.
        options: that it made of the arguments.

    Raises:
        UserError: there is one, be its value the default.
    """
    replaced = {option.removeprefix("--"): option for option in getattr(options, "replaced_by_quick", ())}
    if not replaced or not options.quick:
        return
    # The parser sets no default where there is a value, so what is None still was not given.
    given = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(replaced)))
    found = [option for name, option in replaced.items() if getattr(given, name) is not None]
    if found:
        raise UserError(f"--quick: has its own values for {', '.join(found)}; leave out those, or --quick")


def add_names(
    parser: argparse.ArgumentParser, option: str, names: Mapping[str, Sequence[str]], *, help: str, **others: Any
) -> None:
    """Add an option that takes names, and list these below the help of the parser, one a line and quoted for a shell.

    Args:
        names: that the option takes, by what they have in common.
        others: of `add_argument`.
    """
    known = dict.fromkeys(name for group in names.values() for name in group)

    def name_of(text: str) -> str:
        """One of the names."""
        if text not in known:
            raise argparse.ArgumentTypeError(f"got {text!r}; use one or more of {quote_names(known)}")
        return text

    parser.add_argument(option, nargs="+", type=name_of, metavar="NAME", help=f"{help}; names are below", **others)
    lists = ("\n".join([f"{option}, {what}:", *(f'  "{name}"' for name in group)]) for what, group in names.items())
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, "\n\n".join(lists)


def quote_names(names: Iterable[str]) -> str:
    """Names that may hold commas, for a message; each can be pasted into a shell."""
    return "; ".join(f'"{name}"' for name in names)


def files_of(options: argparse.Namespace) -> Files:
    """Where the suite's files are, its output folder made.

    Raises:
        UserError: `--tokenizer` names none.
    """
    if options.tokenizer is not None:
        check_tokenizer(options.tokenizer)
    options.output.mkdir(parents=True, exist_ok=True)
    return Files(options.scratch.absolute(), options.tokenizer)


def effort_of(options: argparse.Namespace, deadline: float) -> Effort:
    """How much is measured.

    Args:
        deadline: of all the suite's cases together, a time of `time.monotonic()`.
    """
    return Effort(options.repeats, deadline, options.retry)

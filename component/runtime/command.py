"""How every command of the project ends: its exit code, and a line instead of a traceback for what a user can mend."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from component.config.errors import EXIT_INTERRUPTED, RunError
from component.runtime.redaction import redact


def run_command(main: Callable[[], int]) -> int:
    """Call `main` and turn the errors that a user can mend, and Ctrl-C, into messages on stderr and exit codes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # data holds letters that a terminal may have no code for
    try:
        return main()
    except RunError as error:
        print(redact(str(error)), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe such as `| head` has gone; Python would complain once more at exit
        return 0


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout, values from the environment as the config writes them."""
    for line in lines:
        print(redact(line))


def positive_int(text: str) -> int:
    """A whole number above 0, as `type` of an option.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a whole number above 0")
    return number


def positive_float(text: str) -> float:
    """A finite number above 0, as `type` of an option.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; give a number above 0")
    return number


class Distinct(argparse.Action):
    """Takes the values of an option with several, each of them once; as `action` of it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the values.

        Raises:
            ArgumentError: one is there twice.
        """
        chosen: Sequence[Any] = values
        repeated = next((value for place, value in enumerate(chosen) if value in chosen[:place]), None)
        if repeated is not None:
            raise argparse.ArgumentError(self, f"got {repeated} twice; name each once")
        setattr(namespace, self.dest, values)


class OneFile(argparse.Action):
    """Takes one file; as `action` of an option that another of its kind would replace without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the file.

        Raises:
            ArgumentError: there is one already.
        """
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, 'is there twice; give one file, and name the other under its "base"')
        setattr(namespace, self.dest, values)


def folder_path(text: str) -> Path:
    """The path of a folder, as `type` of an option.

    Raises:
        ArgumentTypeError: it is empty, or there is something else.
    """
    path = Path(non_empty(text))
    if any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise argparse.ArgumentTypeError(f"got {text!r}, and there is a file in its place; name a folder")
    return path


def non_empty(text: str) -> str:
    """A text with something in it, as `type` of an option.

    Raises:
        ArgumentTypeError: it is empty, as an unset variable of a shell script makes it.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text

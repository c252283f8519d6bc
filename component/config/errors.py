"""Errors a user can mend, each with its exit code and a message that needs no traceback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_GUARD = 3
EXIT_OUT_OF_MEMORY = 4
EXIT_INTERRUPTED = 130


class RunError(Exception):
    """A run that ends early for a reason the user can read and act on.

    Args:
        messages: one line each, printed as they are on stderr.
    """

    exit_code = EXIT_USER

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


class UserError(RunError):
    """The user's config, data or environment must change before this can run."""


class DataError(UserError):
    """The user's data cannot be trained on; messages begin with `file:line:` where a row is at fault."""


class MachineError(UserError):
    """This machine or installation lacks something that the config asks for."""


class GuardError(RunError):
    """A guard stopped the run: the loss was not finite or diverged."""

    exit_code = EXIT_GUARD


class DeviceMemoryError(RunError):
    """The device ran out of memory; the message says what to change."""

    exit_code = EXIT_OUT_OF_MEMORY


class InterruptedRun(RunError):
    """SIGINT or SIGTERM arrived; the run was checkpointed and can be resumed."""

    exit_code = EXIT_INTERRUPTED


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written: a file position (line and column from 1), or a source such as the command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


COMMAND_LINE = Place("command line")
SCHEMA_DEFAULT = Place("default")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a config, printed as `place: key: what is wrong; what to do`."""

    place: Place
    key: str
    what: str
    fix: str

    def __str__(self) -> str:
        subject = f"{self.key}: " if self.key else ""
        remedy = f"; {self.fix}" if self.fix else ""
        text = f"{self.place}: {subject}{self.what}{remedy}"
        # File names, keys and values are the user's: what would break the line, or steer a terminal, is escaped.
        return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


class ConfigError(UserError):
    """All problems of a config at once, in the order of file and position."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(*(str(problem) for problem in self.problems))

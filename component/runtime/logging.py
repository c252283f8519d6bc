"""Log lines to the terminal and to train.log, those of the libraries and of `warnings` included."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from component.runtime.redaction import redact

if TYPE_CHECKING:
    from loguru import Record

TERMINAL_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {message}"
# These put up handlers of their own when they are imported.
LIBRARIES = ("accelerate", "datasets", "peft", "torch", "transformers", "trl", "unsloth")

#: Warnings that are for the developers of the libraries.
DEVELOPER_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, SyntaxWarning)

#: Lines of libraries, at whatever moment they are imported, that give a user nothing to do.
KNOWN_TALK = (
    # bitsandbytes on a CPU with bfloat16 instructions: a kernel that the loaders switch off, see quantization.py
    r"Failed to load CPU gemm_4bit_forward from kernels-community",
)

_sinks: list[int] = []
_demoted: list[re.Pattern[str]] = [re.compile(pattern) for pattern in KNOWN_TALK]


def configure_logging(log_file: Path | None, rank: int) -> None:
    """Send log lines to stderr and to a file; each call replaces what the one before set up.

    Call it before anything is logged, and again once the heavy libraries are imported: they install handlers at import,
    which this removes so that their lines take the same way as ours. Levels: INFO on rank 0, WARNING on the others;
    WARNING for libraries, whose equal messages appear once. Tracebacks never show the values of variables.

    Args:
        log_file: appended to on rank 0; None logs to stderr alone.
        rank: of this process.
    """
    if _sinks:
        for sink in _sinks:
            logger.remove(sink)
        _sinks.clear()
    else:
        logger.remove()  # loguru's own default sink, which shows local variables
    logger.configure(patcher=_hide_values)
    level = "INFO" if rank == 0 else "WARNING"
    _sinks.append(
        logger.add(
            _write_to_stderr,
            level=level,
            format=TERMINAL_FORMAT,
            filter=_is_for_terminal,
            colorize=sys.stderr.isatty(),
            backtrace=False,
            diagnose=False,
        )
    )
    if log_file is not None and rank == 0:
        _sinks.append(
            logger.add(
                # loguru formats a file's name: braces are its own
                str(log_file).replace("{", "{{").replace("}", "}}"),
                level=level,
                format=FILE_FORMAT,
                colorize=False,
                encoding="utf-8",
                backtrace=False,
                diagnose=False,
            )
        )
    _route_libraries()


def demote_to_debug(patterns: Iterable[str]) -> None:
    """Log the lines of libraries at debug level where one of these regular expressions is found in them."""
    _demoted.extend(re.compile(pattern) for pattern in patterns)


def _hide_values(record: Record) -> None:
    record["message"] = redact(record["message"])


def _is_for_terminal(record: Record) -> bool:
    # What was printed to the terminal in colours is logged once more for the file alone.
    return not record["extra"].get("file_only")


def _write_to_stderr(line: str) -> None:
    # Looked up at each line: a progress display replaces sys.stderr while it is alive.
    sys.stderr.write(line)


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, LoguruHandler) or type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    handler = LoguruHandler()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in LIBRARIES:
        library = logging.getLogger(name)
        for own in list(library.handlers):
            if type(own) is logging.StreamHandler:
                library.removeHandler(own)
        library.propagate = True
    warnings.showwarning = handler.show_warning
    transformers = sys.modules.get("transformers")
    if transformers is not None and not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


class LoguruHandler(logging.Handler):
    """Hands records of the standard library's logging, and warnings, to loguru; equal ones only once."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record under its own level, with the name of its library in front."""
        text = f"{record.name.partition('.')[0]}: {record.getMessage()}"
        self._log(record.levelno, text, record.exc_info)

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Log one warning; has the signature of `warnings.showwarning`."""
        level = logging.DEBUG if issubclass(category, DEVELOPER_WARNINGS) else logging.WARNING
        self._log(level, f"{category.__name__}: {message} ({Path(filename).name}:{lineno})", None)

    def _log(self, number: int, text: str, exc_info: object) -> None:
        if text in self._seen:
            return
        self._seen.add(text)
        if number <= logging.WARNING and any(pattern.search(text) for pattern in _demoted):
            number = logging.DEBUG
        name = logging.getLevelName(number)
        level = name if name in ("DEBUG", "WARNING", "ERROR", "CRITICAL") else number
        logger.opt(exception=exc_info).log(level, text)

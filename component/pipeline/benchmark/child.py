"""A child process of a benchmark: its output in a file, its end, and when its first step was done."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
#: Seconds between looks at a child, and that it has to write what it must after it was asked to end.
INTERVAL, PATIENCE = 0.1, 20
#: Lines of a child's output that a result keeps where it did not end well.
NUM_LINES = 15
#: Of every child: no network, and results that do not depend on a service.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "TOKENIZERS_PARALLELISM": "true",
}


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        first_step_seconds: from its start to the end of its first step; None where it was not seen.
        lines: the last ones of its output.
    """

    code: int
    seconds: float
    first_step_seconds: float | None
    lines: tuple[str, ...]


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    first_step: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command at the root of the checkout and wait for it.

    Args:
        log: takes its output.
        first_step: a file that has something in it once the first step is done.
        environment: variables beside those of this process.
    """
    began, stepped = time.monotonic(), None
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**ENVIRONMENT, **os.environ, **(environment or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                time.sleep(INTERVAL)
                if stepped is None and _has_content(first_step):
                    stepped = time.monotonic() - began
        finally:
            if process.poll() is None:
                _end(process)  # Ctrl-C: the child has it too, but a killed benchmark must leave no child behind
    seconds = time.monotonic() - began
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Ended(process.returncode, seconds, stepped, tuple(lines[-NUM_LINES:]))


def _has_content(path: Path | None) -> bool:
    return path is not None and path.is_file() and path.stat().st_size > 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Where the time of a run's start goes, from its command to the end of its first optimizer step."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import psutil

#: Imports and settings; tokenizer and rows; weights and trainer; the first step with all that is compiled in it.
Part = Literal["imports", "data", "model", "step"]


class Stopwatch:
    """Gives each moment of the start to one part of it.

    Args:
        began: `time.monotonic()` of its first moment, which belongs to the imports.
    """

    def __init__(self, began: float | None = None) -> None:
        self._since = time.monotonic() if began is None else began
        self._part: Part | None = "imports"
        self._seconds: dict[str, float] = {}

    def switch(self, part: Part) -> None:
        """What follows belongs to another part, or to one that was left before; after `stop` nothing does."""
        if self._part is not None:
            self._close()
            self._part = part

    def stop(self) -> None:
        """The start is over; a second call does nothing."""
        if self._part is not None:
            self._close()
            self._part = None

    def seconds(self) -> dict[str, float] | None:
        """Of each part, which together are the whole; None before `stop`."""
        return dict(self._seconds) if self._part is None else None

    def _close(self) -> None:
        assert self._part is not None
        now = time.monotonic()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._since
        self._since = now


def command_began() -> float:
    """When this process was started, as a time of `time.monotonic()`: before Python and what it imports."""
    try:
        # Field 22 of the line, which counts from the boot; psutil knows the boot to the second alone.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # no Linux
        age = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(age, 0.0)

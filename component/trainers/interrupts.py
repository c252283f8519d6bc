"""SIGINT and SIGTERM: the first asks training to checkpoint and stop, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Interrupts:
    """A context in which the first signal is kept for the training loop to find.

    Attributes:
        received: the name of the signal, None while there was none.
        has_stopped_training: whether training has heeded it: it ended early, with a checkpoint of its last step.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.has_stopped_training = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python installs handlers from there only
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        # Not through the logger or sys.stderr: neither may be entered again while the signal found it at work.
        os.write(2, f"{self.received}: writing a checkpoint after this step; once more to stop at once\n".encode())

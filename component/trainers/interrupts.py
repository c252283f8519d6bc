"""SIGINT and SIGTERM: the first asks training to checkpoint and stop, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

#: Seconds that a data worker lives on after SIGTERM.
WORKER_GRACE = 20


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


def shield_worker(worker_id: int, start: Callable[[int], None] | None) -> None:
    """Start a data worker that outlives the signals of its run; fits `worker_init_fn` of a DataLoader.

    Ctrl-C, and SIGTERM from a scheduler, reach every process of a run. A worker that ends at once fails the step that
    the main process means to finish before it writes its checkpoint.

    Args:
        start: what else the worker does at its start.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for good: it is also how a main process that has failed ends its workers, which it waits for.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(WORKER_GRACE))
    if start is not None:
        start(worker_id)

"""SIGINT, SIGTERM and SIGHUP: the first asks training to checkpoint and stop, the second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

#: A closed terminal or a lost connection sends the last, which Windows does not have.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
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
            for number in SIGNALS:
                if _is_hangup(number) and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup asks for that
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if _is_hangup(number):
                return  # shell and system both send one when a terminal closes; nobody is there to ask for haste
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        message = (
            f"{self.received}: the run stops with a checkpoint after this step, or finishes if all steps are done; "
            "once more to stop at once\n"
        )
        # Not through the logger or sys.stderr: neither may be entered again while the signal found it at work.
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, message.encode())


def _is_hangup(number: int) -> bool:
    return signal.Signals(number).name == "SIGHUP"


def shield_worker(worker_id: int, start: Callable[[int], None] | None) -> None:
    """Start a data worker that outlives the signals of its run; fits `worker_init_fn` of a DataLoader.

    Ctrl-C, and SIGTERM from a scheduler, reach every process of a run. A worker that ends at once fails the step that
    the main process means to finish before it writes its checkpoint.

    Args:
        start: what else the worker does at its start.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Not ignored for good: it is also how a main process that has failed ends its workers, which it waits for.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(WORKER_GRACE))
    if start is not None:
        start(worker_id)

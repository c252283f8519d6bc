"""How long training waits for its batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


def time_batches(loader: Any, add_seconds: Callable[[float], None]) -> None:
    """Let a loader of torch tell how long each of its batches was waited for, what makes them at once included.

    The copy to the device is no part of that: it may wait for what the device still computes.

    Args:
        loader: as accelerate keeps it, which asks it for its iterator by the name of the method. The epoch that a
            resume enters in its middle is read through another loader, and is not timed.
    """
    begin = type(loader).__iter__
    loader.__iter__ = lambda: _timed(begin(loader), add_seconds)


def _timed(batches: Iterator[Any], add_seconds: Callable[[float], None]) -> Iterator[Any]:
    while True:
        began = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            add_seconds(time.perf_counter() - began)
        yield batch

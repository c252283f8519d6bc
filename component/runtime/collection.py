"""Python's search for unreachable objects, which costs seconds where millions of objects come to stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without that search, and leave out of later ones what is there now.

    It takes a quarter off the import of Unsloth and what it brings, and libraries that call for a search at each
    turn, as Unsloth does while it loads a model, get one in no time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

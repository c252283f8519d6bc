"""Python's search for unreachable objects, which costs seconds where millions of objects come to stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_imported: set[str] = set()


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Import without that search, and leave out of later ones what is there then: once in a process.

    It takes a quarter off the import of Unsloth and what it brings, and libraries that call for a search at each
    turn, as Unsloth does while it loads a model, get one in no time.

    Args:
        what: names the imports; a second time there is nothing to gain.
    """
    if what in _imported or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _imported.add(what)
        gc.freeze()
        gc.enable()

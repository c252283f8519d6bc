"""Where compiled kernels are kept from one run to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from component.runtime.cache_folder import cache_folder

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def keeping_kernels() -> Iterator[None]:
    """Let torch keep what it compiles in the user's cache, which outlives a restart of the machine; its own is in /tmp.

    A folder that the user has set stays, also where an import within this context drops it, as Unsloth's does.
    """
    folder = os.environ.get(VARIABLE) or str(cache_folder("torchinductor"))
    os.environ[VARIABLE] = folder
    try:
        yield
    finally:
        os.environ[VARIABLE] = folder

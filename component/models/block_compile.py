"""Unsloth compiles whole decoder layers, through which rows train that are not packed; its own switch for that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Read by Unsloth at each call of a layer.
SWITCH = "UNSLOTH_BLOCK_COMPILE"


def switch_off() -> None:
    """Let layers run as they are from now on."""
    os.environ[SWITCH] = "0"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Let layers run as they are, where a few calls would not pay for the 20 seconds that compiling takes."""
    before = os.environ.get(SWITCH)
    switch_off()
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before

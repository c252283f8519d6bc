"""Unsloth compiles whole decoder layers for rows that are not packed; how layers are left out of that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

#: Read by Unsloth at each call of a layer.
SWITCH = "UNSLOTH_BLOCK_COMPILE"
#: What Unsloth notes at a layer that is not to be compiled.
MODE, OFF = "_unsloth_block_mode", 0


def leave_uncompiled(*layers: nn.Module) -> None:
    """Let decoder layers run as they are: where each holds an object of its own, each would be compiled anew."""
    for layer in layers:
        vars(layer)[MODE] = OFF


@contextmanager
def uncompiled() -> Iterator[None]:
    """Let all layers run as they are, where a few calls would not pay for the 20 seconds that compiling takes."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before

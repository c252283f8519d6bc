"""The memory of the device: a limit for this process, and giving back what a failed step has left."""

from __future__ import annotations

import gc
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware


def limit_memory(num_bytes: float, hardware: Hardware) -> None:
    """Let torch reserve no more than this on the GPU of this process; on other devices nothing can be limited."""
    if hardware.kind != "cuda":
        return
    import torch

    torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, num_bytes / hardware.total_memory_bytes)))


def release_memory(error: BaseException) -> None:
    """Give back what the code that failed has left: the variables of its frames hold activations and gradients."""
    import torch

    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

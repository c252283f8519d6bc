"""What several runs in one process leave to the next one, given back."""

from __future__ import annotations

import gc
import sys

from component.planning.memory import LIBRARY_BYTES


def release_memory() -> None:
    """Give back what the last case had, Unsloth's buffers and bitsandbytes' list too, and begin to count anew."""
    checkpointing = sys.modules.get("unsloth_zoo.gradient_checkpointing")
    # The module declares its buffers; only `initialize_unsloth_gradient_checkpointing` makes the name.
    if getattr(checkpointing, "GPU_BUFFERS", None) is not None:
        checkpointing.reset_unsloth_gradient_checkpointing_buffers()
    optimizers = sys.modules.get("bitsandbytes.optim.optimizer")
    if optimizers is not None:
        # With 8-bit states transformers registers every embedding for 32-bit ones, and the list outlives the model.
        optimizers.GlobalOptimManager.get_instance().initialize()
    kernels = sys.modules.get("unsloth.kernels.utils")
    for name in ("WEIGHT_BUFFERS", "ABSMAX_BUFFERS"):
        buffers = getattr(kernels, name, [])
        buffers[:] = [None] * len(buffers)
    if "torch._dynamo" in sys.modules:
        # Compiled code is kept by the shapes and flags that it was made for; beyond some number of them none is made.
        sys.modules["torch"]._dynamo.reset()
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        cuda = sys.modules["torch"].cuda
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()


def lift_cap() -> None:
    """Let this process take all of the GPU: a cap was the last run's own."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1.0)


def allocated_bytes() -> int:
    """Memory of the GPU that tensors of this process have now.

    torch is not imported for it: the first run sets up torch's allocator, and must come before that.
    """
    torch = sys.modules.get("torch")
    return torch.cuda.memory_allocated() if torch is not None and torch.cuda.is_available() else 0


def foreign_bytes(left_over: float | None) -> float:
    """Of what was allocated before a run began, that of earlier runs; every process has the libraries' workspace."""
    return max(0.0, (left_over or 0) - LIBRARY_BYTES)

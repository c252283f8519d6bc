"""What takes a GPU's memory beside tensors, set before torch takes any: segments that grow, workspaces of cuBLAS."""

from __future__ import annotations

import os
import platform
import sys

#: Variables that configure it; torch 2.10 renamed the second to the first and reads both.
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
EXPANDABLE = "expandable_segments:True"
#: cuBLAS's workspace of each thread that multiplies: 8 MiB, its own choice before Hopper, instead of 32.
WORKSPACE, SMALL_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8"
#: Workspaces that give the same sums in every run, those that transformers asks for with `full_determinism`.
REPEATABLE_WORKSPACE = ":16:8"


def expand_segments(*, is_wanted: bool = True) -> None:
    """Let torch's CUDA allocator grow its segments, so that free blocks between others are not lost.

    Tensors whose size differs from batch to batch leave holes in segments of a fixed size; with long rows or a nearly
    full card that decides whether a run fits. Unsloth sets the same where it is imported. What the user has set stays.

    Args:
        is_wanted: False where something else of the run brings an allocator that does not go with it (vLLM).
    """
    if is_wanted and _is_offered() and _given() is None:
        os.environ[VARIABLES[0]] = EXPANDABLE


def segments_grow(*, is_wanted: bool = True) -> bool:
    """Whether they do in a run that begins now, of which other systems than Linux only make plans.

    Args:
        is_wanted: see `expand_segments`.
    """
    given = _given()
    return is_wanted and not _lacks_virtual_memory() if given is None else EXPANDABLE in given


def _given() -> str | None:
    """What the user has set, of the variable that counts; None for nothing."""
    return next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)


def shrink_workspaces(*, is_wanted: bool) -> None:
    """Leave cuBLAS a quarter of the memory that it takes on Hopper; what the user has set stays.

    That is for as long as the process lives: torch takes the workspace at its first product of matrices and keeps it.
    Runs that follow in the process have a small one too, and a large one where the first of them did without this.
    """
    if is_wanted and _has_no_workspace():
        os.environ.setdefault(WORKSPACE, SMALL_WORKSPACE)


def repeat_sums(*, is_wanted: bool) -> None:
    """Have cuBLAS add up in the same order in every run, whatever else is set.

    torch reads the variable at its first product of matrices and refuses deterministic algorithms if it was another
    one then; transformers sets it with the trainer, after the model is loaded.
    """
    if is_wanted:
        os.environ[WORKSPACE] = REPEATABLE_WORKSPACE


def allocator_settings() -> dict[str, str]:
    """The settings of this process, for run.json."""
    return {name: os.environ[name] for name in (*VARIABLES, WORKSPACE) if name in os.environ}


def _has_no_workspace() -> bool:
    """Whether torch has not multiplied on the GPU: a workspace is allocated as tensors are, and stays."""
    torch = sys.modules.get("torch")
    return torch is None or (torch.cuda.is_initialized() and torch.cuda.memory_allocated() == 0)


def _is_offered() -> bool:
    return sys.platform == "linux" and not _lacks_virtual_memory() and "torch" not in sys.modules


def _lacks_virtual_memory() -> bool:
    """Whether CUDA's virtual memory is not there: inside WSL 2 and on Tegra boards."""
    return "microsoft" in platform.release().lower() or os.path.exists("/etc/nv_tegra_release")

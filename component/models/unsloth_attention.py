"""What Unsloth's fast path runs packed rows on, and the seam that gives it torch's variable-length kernel.

From torch 2.12 on Unsloth takes that kernel by itself; on 2.11, whose kernel has no flag for grouped heads, it calls
SDPA once for each sample, unless its module attribute of the kernel is set.
"""

from __future__ import annotations

import inspect
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from component.models.attention import head_shape
from component.models.kernel_check import check_kernels
from component.models.packed_attention import (
    FLASH_ATTN,
    PACKED_ROWS,
    SAMPLE_SDPA,
    VARLEN,
    XFORMERS,
    PackedAttention,
)
from component.models.support import is_fast_family
from component.models.varlen_kernel import VarlenKernel, are_full_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PretrainedConfig

    from component.runtime.hardware import Hardware

#: Versions of Unsloth whose seam was read and run.
SEAM_VERSIONS = ("2026.10.9",)
#: The module with the attribute that holds the kernel, and the function that calls it.
DISPATCH = "unsloth.utils.attention_dispatch"
SEAM = "_TORCH_VARLEN_ATTN"
SEAM_CALLER = "_varlen_attn_call"
#: The function that says whether rows go to the kernel; those whose samples are all of one length do not.
CHOICE, CHOICE_PARAMETERS = "_torch_varlen_beats_segments", ("Q", "K", "lengths", "n_groups", "is_causal")
SEAM_PARAMETERS = ("Q_f", "K_f", "V_f", "cu_seqlens", "max_seqlen", "scale", "window_size", "enable_gqa")
#: Attribute of a function that stands in the place of another one, which it holds.
REPLACED = "replaced"
#: What it runs models on whose attention scores are capped; it has no way of its own to keep samples apart.
CAPPED = "Unsloth's attention for capped scores"
#: Unsloth's own switch for the kernel, and the values that turn it off.
SWITCH = "UNSLOTH_TORCH_VARLEN"
OFF = ("0", "false", "no", "off")


def prepare_packed_attention(
    dispatch: ModuleType | None,
    model_config: PretrainedConfig,
    hardware: Hardware,
    *,
    unsloth_version: str,
    compute_dtype: str,
    device: Any,
) -> PackedAttention:
    """Say what packed rows will run on; on Unsloth's fast path, after giving it torch's kernel where it takes none.

    Args:
        dispatch: Unsloth's module of that choice, which holds the seam; None where there is no such module.
        model_config: of the loaded model.
        compute_dtype: number format of the computation, by torch's name.
    """
    if hardware.kind != "cuda" or not is_fast_family(model_config.model_type):
        implementation = model_config._attn_implementation
        where = "on a CPU" if hardware.kind != "cuda" else f"for {model_config.model_type}"
        return PackedAttention(
            PACKED_ROWS.get(implementation, implementation), f"Unsloth leaves attention to transformers {where}"
        )
    _take_back(dispatch)
    own = _own_kernel(dispatch)
    if own is not None:
        return own
    if getattr(model_config, "attn_logit_softcapping", None):
        return PackedAttention(CAPPED, "the model caps its attention scores, and flash-attn is not installed")
    obstacle = _seam_obstacle(dispatch, unsloth_version)
    if obstacle is not None:
        return PackedAttention(SAMPLE_SDPA, obstacle)
    checked = check_kernels(
        head_shape(model_config), dtype=compute_dtype, device=device, compiler_obstacle="Unsloth has no place for it"
    )
    if isinstance(checked, str):
        return PackedAttention(SAMPLE_SDPA, checked)
    assert isinstance(checked.kernel, VarlenKernel)
    _give(dispatch, SEAM, as_unsloth_calls(checked.kernel))
    if checked.kernel.has_dense_rows and _has_choice(dispatch):
        _give(dispatch, CHOICE, taking_full_rows(getattr(dispatch, CHOICE)))
    reason = (
        f"given to Unsloth, which takes it by itself from torch 2.12 on; within {checked.error:.1g} of float64 here"
    )
    return PackedAttention(checked.name, reason)


def as_unsloth_calls(kernel: VarlenKernel) -> Callable[..., Tensor]:
    """The kernel with the parameters that Unsloth gives it."""

    def varlen(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        boundaries: Tensor,
        _key_boundaries: Tensor,
        max_length: int,
        _max_key_length: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Tensor:
        """A packed row through the kernel; the parameters are those Unsloth calls it with."""
        return kernel.call(query, key, value, boundaries, max_length, window_size=window_size, scale=scale)

    return varlen


def taking_full_rows(choose: Callable[..., bool]) -> Callable[..., bool]:
    """Unsloth's choice of rows for the kernel, and with them those that the kernel computes as a dense batch."""

    def beats_segments(query: Tensor, key: Tensor, lengths: tuple[int, ...], n_groups: int, is_causal: bool) -> bool:
        """Of rows of shape (1, H, T, D) with samples of these lengths."""
        longest = max(lengths, default=0)
        if is_causal and longest and are_full_rows(query.shape[-2], len(lengths), longest):
            return True
        return choose(query, key, lengths, n_groups, is_causal)

    return beats_segments


def _give(dispatch: ModuleType | None, name: str, function: Callable[..., Any]) -> None:
    setattr(function, REPLACED, getattr(dispatch, name))
    setattr(dispatch, name, function)


def _take_back(dispatch: ModuleType | None) -> None:
    """Undo what was done for an earlier model of this process, whose kernel was checked for its heads and window."""
    for name in (SEAM, CHOICE):
        given = getattr(dispatch, name, None)
        if hasattr(given, REPLACED):
            setattr(dispatch, name, getattr(given, REPLACED))


def _has_choice(dispatch: ModuleType | None) -> bool:
    function = getattr(dispatch, CHOICE, None)
    return function is not None and tuple(inspect.signature(function).parameters) == CHOICE_PARAMETERS


def _own_kernel(dispatch: ModuleType | None) -> PackedAttention | None:
    """What Unsloth takes by itself, None where that is SDPA for each sample."""
    if getattr(dispatch, "HAS_FLASH_ATTENTION", False):
        return PackedAttention(FLASH_ATTN, "Unsloth takes it where it is installed")
    if getattr(dispatch, "HAS_XFORMERS", False) and not getattr(dispatch, "_NATIVE_BEATS_XFORMERS", False):
        return PackedAttention(XFORMERS, "Unsloth takes it where it is installed")
    if getattr(dispatch, SEAM, None) is not None:
        return PackedAttention(VARLEN, "Unsloth takes it by itself")
    return None


def _seam_obstacle(dispatch: ModuleType | None, unsloth_version: str) -> str | None:
    """Why the kernel cannot be given to Unsloth; None where the seam is as it was read."""
    if os.environ.get(SWITCH, "1").lower() in OFF:
        return f"{SWITCH} is {os.environ[SWITCH]} in the environment"
    if unsloth_version not in SEAM_VERSIONS:
        return f"the kernel is given to Unsloth {' or '.join(SEAM_VERSIONS)} only, and this is {unsloth_version}"
    caller = getattr(dispatch, SEAM_CALLER, None)
    if not hasattr(dispatch, SEAM) or not inspect.isfunction(caller):
        return f"Unsloth {unsloth_version} has no {SEAM} where it was"
    if tuple(inspect.signature(caller).parameters) != SEAM_PARAMETERS or SEAM not in caller.__code__.co_names:
        return f"Unsloth {unsloth_version} calls {SEAM} in another way than it did"
    return None

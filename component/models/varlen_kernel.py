"""Torch's variable-length attention kernel: whether it is here, what it can do, and whether it computes rightly."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from component.models.failures import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: The check's error, relative to float32, may be this many roundings of the number format.
NUM_ROUNDINGS = 8
#: Tokens of the check's samples, the shorter one first; its window where the model has one.
CHECK_LENGTHS = (40, 88)
CHECK_WINDOW = 24


@dataclass(frozen=True)
class HeadShape:
    """The attention heads of a model: numbers of query and of key/value heads, their size, and a sliding window."""

    num_heads: int
    num_key_value_heads: int
    head_dim: int
    window: int | None = None


@dataclass(frozen=True)
class VarlenKernel:
    """`torch.nn.attention.varlen.varlen_attn` of the installed torch, causal.

    Attributes:
        function: the kernel's public function.
        takes_gqa_flag: it wants to be told of fewer key/value heads than query heads (torch 2.12 and later).
        repeats_heads: key/value heads are repeated before the call, since the kernel takes as many as query heads.
    """

    function: Callable[..., Tensor]
    takes_gqa_flag: bool
    repeats_heads: bool = False

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        boundaries: Tensor,
        max_length: int,
        *,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Attend causally inside each sample.

        Args:
            query: shape (T, H, D), float16 or bfloat16.
            key, value: shape (T, H_kv, D).
            boundaries: int32, shape (N + 1,): 0, then the tokens up to the end of each sample.
            max_length: tokens of the longest sample.
            window: tokens that one sees, itself included; None: all before it.
            scale: of the scores; None: 1 / sqrt(D).

        Returns:
            Shape (T, H, D).
        """
        # The kernel counts the tokens before a token; only exactly (-1, 0) takes its causal path.
        left = -1 if window is None or window >= max_length else window - 1
        return self.call(query, key, value, boundaries, max_length, window_size=(left, 0), scale=scale)

    def call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        boundaries: Tensor,
        max_length: int,
        *,
        window_size: tuple[int, int],
        scale: float | None,
    ) -> Tensor:
        """As a call of the object, with the kernel's own window: tokens seen before and after one, -1 for all."""
        groups = query.shape[1] // key.shape[1]
        if groups > 1 and self.repeats_heads:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        needs_flag = groups > 1 and self.takes_gqa_flag
        return self.function(
            query,
            key,
            value,
            boundaries,
            boundaries,
            max_length,
            max_length,
            window_size=window_size,
            scale=scale,
            **({"enable_gqa": True} if needs_flag else {}),
        )


def find_kernel() -> VarlenKernel | str:
    """The kernel as the installed torch has it, or why there is none."""
    import torch

    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    if not torch.backends.cuda.is_flash_attention_available():
        return "this build of torch has no FlashAttention kernels"
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    parameters = inspect.signature(varlen_attn).parameters
    if "window_size" not in parameters or "scale" not in parameters:
        return f"the varlen_attn of torch {torch.__version__} takes no window_size and scale"
    return VarlenKernel(varlen_attn, takes_gqa_flag="enable_gqa" in parameters)


def check_kernel(heads: HeadShape, *, dtype: str, device: Any) -> tuple[VarlenKernel, float] | str:
    """Find the kernel and hold it to float32 on two small samples, forward and backward, with a model's heads.

    Fewer key/value heads than query heads are tried as they are, then repeated.

    Args:
        dtype: number format of the computation, by torch's name.

    Returns:
        The kernel with its error (norm of the difference over norm, the largest over output and gradients), or why it
        cannot be used.
    """
    import torch

    found = find_kernel()
    if isinstance(found, str):
        return found
    limit = NUM_ROUNDINGS * torch.finfo(getattr(torch, dtype)).eps
    ways = [found]
    if heads.num_key_value_heads < heads.num_heads and not found.takes_gqa_flag:
        ways.append(VarlenKernel(found.function, found.takes_gqa_flag, repeats_heads=True))
    reason = ""
    for kernel in ways:
        try:
            error = kernel_error(kernel, heads, dtype=getattr(torch, dtype), device=device)
        except (RuntimeError, ValueError, TypeError) as failure:
            if isinstance(failure, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            reason = f"torch's varlen_attn does not run here: {first_line(failure)}"
            continue
        if error <= limit:
            return kernel, error
        reason = f"torch's varlen_attn is off by {error:.2g} from float32, which rounding does not explain"
    return reason


def kernel_error(kernel: VarlenKernel, heads: HeadShape, *, dtype: torch.dtype, device: Any) -> float:
    """Error of a kernel against float32 attention with a dense mask, as `check_kernel` gives it."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    total, window = sum(CHECK_LENGTHS), CHECK_WINDOW if heads.window else None

    def draw(num_heads: int) -> Tensor:
        shape = (total, num_heads, heads.head_dim)
        return torch.randn(shape, device=device, generator=generator).to(dtype).requires_grad_()

    inputs = draw(heads.num_heads), draw(heads.num_key_value_heads), draw(heads.num_key_value_heads)
    weights = torch.randn((total, heads.num_heads, heads.head_dim), device=device, generator=generator)
    boundaries = torch.tensor([0, CHECK_LENGTHS[0], total], dtype=torch.int32, device=device)

    def results(attend: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> list[Tensor]:
        output = attend(*tensors)
        return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), tensors)]

    def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = sample_mask(boundaries, rows=1, length=total, window=window)[0, 0]
        groups = heads.num_heads // heads.num_key_value_heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        scores = torch.einsum("qhd,khd->hqk", query, key) * heads.head_dim**-0.5
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), value)

    with torch.enable_grad(), torch.autocast(torch.device(device).type, enabled=False):
        seen = results(lambda *qkv: kernel(*qkv, boundaries, max(CHECK_LENGTHS), window=window), inputs)
        exact = results(dense, tuple(tensor.detach().float().requires_grad_() for tensor in inputs))
    errors = [((one.float() - other).norm() / other.norm()).item() for one, other in zip(seen, exact, strict=True)]
    return max(errors)


def sample_mask(boundaries: Tensor, *, rows: int, length: int, window: int | None) -> Tensor:
    """What each token may see, as a dense mask: what precedes it in its sample, itself included.

    Args:
        boundaries: int32, shape (N + 1,): 0, then the tokens up to the end of each sample, rows laid end to end.
        window: tokens that one sees, itself included; None: all before it.

    Returns:
        bool, shape (rows, 1, length, length).
    """
    import torch

    tokens = torch.arange(rows * length, device=boundaries.device, dtype=boundaries.dtype)
    samples = torch.searchsorted(boundaries[1:], tokens, right=True).view(rows, 1, length)
    distance = tokens[:length, None] - tokens[None, :length]
    is_near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return (samples[..., :, None] == samples[..., None, :]) & is_near

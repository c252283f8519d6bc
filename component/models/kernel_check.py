"""Which kernel packed rows get: each is held to float64 attention with a model's heads, on the device, before use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from component.models.failures import first_line
from component.models.flex_kernel import FlexKernel
from component.models.packed_attention import FLEX, VARLEN
from component.models.varlen_kernel import Segments, VarlenKernel, find_varlen, sample_mask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Kernel = VarlenKernel | FlexKernel

#: The error, relative to float64, may be this many roundings of the number format.
NUM_ROUNDINGS = 8
#: float32 on a GPU may be computed with the shorter numbers of its matrix units.
TF32_EPSILON = 2.0**-10
#: Tokens of the check's samples, and its window where the model has one.
CHECK_LENGTHS = (40, 88)
#: Samples of one length, for kernels that compute these otherwise.
CHECK_DENSE_LENGTHS = (256, 256)
#: Compute capability from which on cuDNN's attention is faster than FlashAttention 2 (H200, 8 x 2048: 2.3 and 3.8 ms).
FASTER_DENSE = (9, 0)
CHECK_WINDOW = 24


@dataclass(frozen=True)
class HeadShape:
    """The attention heads of a model.

    Attributes:
        num_heads, num_key_value_heads: of queries, and of keys and values.
        head_dim: the size of one.
        window: tokens that one sees, itself included; None: all before it.
        cap: bound of the scores, None without.
    """

    num_heads: int
    num_key_value_heads: int
    head_dim: int
    window: int | None = None
    cap: float | None = None


@dataclass(frozen=True)
class CheckedKernel:
    """A kernel that computes rightly here.

    Attributes:
        name: for people.
        error: norm of the difference to float64 over norm, the largest over output and gradients.
        reason: why the ones before it are not used, None for the first.
    """

    kernel: Kernel
    name: str
    error: float
    reason: str | None = None


def check_kernels(
    heads: HeadShape, *, dtype: str, device: Any, compiler_obstacle: str | None = None
) -> CheckedKernel | str:
    """Find the first kernel that computes rightly: torch's variable-length one, then flex_attention.

    Args:
        dtype: number format of the computation, by torch's name.
        compiler_obstacle: why flex_attention cannot be compiled here, None where it can.

    Returns:
        The kernel, or why there is none.
    """
    import torch

    number_format = getattr(torch, dtype)
    epsilon = TF32_EPSILON if number_format is torch.float32 else torch.finfo(number_format).eps
    reasons: list[str] = []
    for name, kernel in _candidates(heads, dtype, compiler_obstacle):
        if isinstance(kernel, str):
            reasons.append(f"no {name}: {kernel}")
            continue
        try:
            error = kernel_error(kernel, heads, dtype=number_format, device=device)
        except (RuntimeError, ValueError, TypeError) as failure:
            if isinstance(failure, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            reasons.append(f"no {name}: it does not run here: {first_line(failure)}")
            continue
        if error <= NUM_ROUNDINGS * epsilon:
            kernel = _with_dense_rows(kernel, heads, dtype=number_format, device=device)
            return CheckedKernel(kernel, name, error, "; ".join(reasons) or None)
        reasons.append(f"no {name}: it is off by {error:.2g} from float64, which rounding does not explain")
    return "; ".join(reasons)


def _candidates(heads: HeadShape, dtype: str, compiler_obstacle: str | None) -> Iterator[tuple[str, Kernel | str]]:
    """Kernels by name, or why one is not tried."""
    varlen = find_varlen()
    if heads.cap is not None:
        varlen = f"the model caps its attention scores at {heads.cap:g}, and it cannot"
    elif dtype not in ("float16", "bfloat16"):
        varlen = f"it computes in 16 bit, and this run in {dtype}"
    elif heads.head_dim % 8 or heads.head_dim > 256:
        varlen = f"it takes heads of a multiple of 8 up to 256, not of {heads.head_dim}"
    yield VARLEN, varlen
    if isinstance(varlen, VarlenKernel) and heads.num_key_value_heads < heads.num_heads:
        yield f"{VARLEN}, key/value heads repeated", replace(varlen, repeats_heads=True)
    yield FLEX, FlexKernel() if compiler_obstacle is None else compiler_obstacle


def _with_dense_rows(kernel: Kernel, heads: HeadShape, *, dtype: torch.dtype, device: Any) -> Kernel:
    """The kernel with samples of one length as a dense batch, where that computes rightly too."""
    import torch

    if not isinstance(kernel, VarlenKernel) or heads.window is not None:
        return kernel
    if torch.device(device).type != "cuda" or torch.cuda.get_device_capability(device) < FASTER_DENSE:
        return kernel
    dense = replace(kernel, has_dense_rows=True)
    try:
        error = kernel_error(dense, heads, dtype=dtype, device=device, lengths=CHECK_DENSE_LENGTHS)
    except (RuntimeError, ValueError, TypeError) as failure:
        if isinstance(failure, torch.OutOfMemoryError | torch.AcceleratorError):
            raise
        return kernel
    return dense if error <= NUM_ROUNDINGS * torch.finfo(dtype).eps else kernel


def kernel_error(
    kernel: Kernel,
    heads: HeadShape,
    *,
    dtype: torch.dtype,
    device: Any,
    lengths: tuple[int, int] = CHECK_LENGTHS,
) -> float:
    """Error of a kernel against float64 attention with a dense mask, as `CheckedKernel` has it.

    Args:
        lengths: tokens of the two samples.
    """
    import torch

    generator = torch.Generator(device).manual_seed(0)
    total = sum(lengths)
    boundaries = torch.tensor([0, lengths[0], total], dtype=torch.int32, device=device)
    segments = Segments(boundaries, total, max(lengths), CHECK_WINDOW if heads.window else None)

    def draw(num_heads: int) -> Tensor:
        """Random heads of all tokens, (total, num_heads, head_dim)."""
        shape = (total, num_heads, heads.head_dim)
        return torch.randn(shape, device=device, generator=generator).to(dtype).requires_grad_()

    inputs = draw(heads.num_heads), draw(heads.num_key_value_heads), draw(heads.num_key_value_heads)
    weights = torch.randn((total, heads.num_heads, heads.head_dim), device=device, generator=generator)

    def results(attend: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """The output and the gradients of all inputs."""
        output = attend(*tensors)
        return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), tensors)]

    with torch.enable_grad(), torch.autocast(torch.device(device).type, enabled=False):
        seen = results(lambda *qkv: kernel(*qkv, segments, scale=None, cap=heads.cap), inputs)
        doubles = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
        exact = results(
            lambda *qkv: dense_attention(
                *(tensor.transpose(0, 1) for tensor in qkv), sample_mask(segments, rows=1)[0], cap=heads.cap
            ),
            doubles,
        )
    errors = [((one - other).norm() / other.norm()).item() for one, other in zip(seen, exact, strict=True)]
    return max(errors)


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: float | None = None,
    cap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention step by step, with capped scores where a model has them.

    Args:
        query: shape (..., H, L, D).
        key, value: shape (..., H_kv, S, D).
        mask: bool, broadcast to (..., H, L, S): what each query sees.
        scale: of the scores; None: 1 / sqrt(D).

    Returns:
        Shape (..., L, H, D).
    """
    import torch

    groups = query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    # A row that sees nothing, such as padding on the left, gets any numbers but NaN.
    hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, torch.finfo(scores.dtype).min)
    scores = scores + hidden
    shares = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (torch.dropout(shares, dropout, train=dropout > 0) @ value).transpose(-3, -2)

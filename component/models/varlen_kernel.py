"""Torch's variable-length attention kernel, and where samples begin and end in the rows that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: The kernel's backward pass counts the elements of a buffer in 32 bits, and faults beyond them (seen on torch 2.11):
#: (tokens + 128 a sample) x heads x size of a head.
MAX_ELEMENTS = 2**31
SAMPLE_PADDING = 128
#: Tokens of a sample from which on dense attention takes it whatever its length, and what lengths are multiples of
#: that come again and again: those of rows that are filled or cut to max_seq_length.
LONG_SAMPLE, COMMON_LENGTH = 16_384, 256


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the samples of packed rows begin and end.

    Attributes:
        boundaries: int32, shape (N + 1,): 0, then the tokens up to the end of each sample, rows laid end to end.
        num_tokens: T, of all rows.
        max_length: tokens of the longest sample.
        window: tokens that one sees, itself included; None: all before it.
        made: what a kernel made of this for its first layer, for the others.
    """

    boundaries: Tensor
    num_tokens: int
    max_length: int
    window: int | None
    made: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VarlenKernel:
    """`torch.nn.attention.varlen.varlen_attn` of the installed torch, causal; float16 and bfloat16.

    Attributes:
        function: the kernel's public function.
        takes_gqa_flag: it wants to be told of fewer key/value heads than query heads (torch 2.12 and later).
        repeats_heads: key/value heads are repeated before the call.
        has_dense_rows: samples of one length are computed as a dense batch, which cuDNN does faster.
    """

    function: Callable[..., Tensor]
    takes_gqa_flag: bool
    repeats_heads: bool = False
    has_dense_rows: bool = False

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether it computes in a number format."""
        import torch

        return dtype in (torch.float16, torch.bfloat16)

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, *, scale: float | None, cap: float | None
    ) -> Tensor:
        """Attend causally inside each sample.

        Args:
            query: shape (T, H, D).
            key, value: shape (T, H_kv, D).
            scale: of the scores; None: 1 / sqrt(D).
            cap: must be None.

        Returns:
            Shape (T, H, D).
        """
        import torch

        assert cap is None, "a model with capped scores does not get this kernel"
        _, num_heads, head_dim = query.shape
        outputs = []
        for boundaries, max_length, part in parts(segments, num_heads=num_heads, head_dim=head_dim):
            # The kernel counts the tokens before a token; only exactly (-1, 0) takes its causal path.
            left = -1 if segments.window is None or segments.window >= max_length else segments.window - 1
            rows = (tensor[part] for tensor in (query, key, value))
            outputs.append(self.call(*rows, boundaries, max_length, window_size=(left, 0), scale=scale))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

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
        """One call of the function; its window are the tokens seen before and after one, -1 for all."""
        num_samples = boundaries.shape[0] - 1
        is_causal = window_size == (-1, 0)
        if self.has_dense_rows and is_causal and are_full_rows(query.shape[0], num_samples, max_length):
            return attend_full_rows(query, key, value, num_samples, scale=scale)
        groups = query.shape[1] // key.shape[1]
        if groups > 1 and self.repeats_heads:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        needs_flag = groups > 1 and self.takes_gqa_flag and not self.repeats_heads
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


def are_full_rows(num_tokens: int, num_samples: int, max_length: int) -> bool:
    """Whether all samples are equally long, and so long, or of so common a length, that cuDNN's attention pays.

    It prepares itself anew, in about 0.1 s, for every shape that it has not seen.
    """
    import torch

    is_worth_it = max_length >= LONG_SAMPLE or max_length % COMMON_LENGTH == 0
    # torch refuses cuDNN's attention where algorithms must be deterministic.
    return num_samples * max_length == num_tokens and is_worth_it and not torch.are_deterministic_algorithms_enabled()


def attend_full_rows(query: Tensor, key: Tensor, value: Tensor, num_samples: int, *, scale: float | None) -> Tensor:
    """Causal attention of samples of one length on cuDNN's kernel, faster on Hopper; arguments as of the kernel.

    Raises:
        RuntimeError: torch finds that cuDNN cannot do it.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    rows = (tensor.unflatten(0, (num_samples, -1)).transpose(1, 2) for tensor in (query, key, value))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        attended = scaled_dot_product_attention(
            *rows, is_causal=True, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
        )
    return attended.transpose(1, 2).flatten(0, 1)


def find_varlen() -> VarlenKernel | str:
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


def parts(segments: Segments, *, num_heads: int, head_dim: int) -> Iterator[tuple[Tensor, int, slice]]:
    """Parts of the rows for a call each, nearly always one: boundaries from 0 on, longest sample, tokens."""
    size = num_heads * (256 if head_dim > 192 else -(-head_dim // 32) * 32)
    num_samples = segments.boundaries.shape[0] - 1
    if (segments.num_tokens + SAMPLE_PADDING * num_samples) * size < MAX_ELEMENTS:
        yield segments.boundaries, segments.max_length, slice(None)
        return
    ends = segments.boundaries.tolist()
    for first, last in split_samples(ends, limit=(MAX_ELEMENTS - 1) // size):
        longest = max(end - start for start, end in zip(ends[first:last], ends[first + 1 : last + 1], strict=True))
        yield segments.boundaries[first : last + 1] - ends[first], longest, slice(ends[first], ends[last])


def split_samples(ends: Sequence[int], *, limit: int) -> list[tuple[int, int]]:
    """Ranges of consecutive samples whose tokens, and padding for each, stay within a limit; one sample may exceed it.

    Args:
        ends: 0, then the tokens up to the end of each sample.
    """
    ranges, first = [], 0
    for last in range(1, len(ends)):
        if last - first > 1 and ends[last] - ends[first] + SAMPLE_PADDING * (last - first) > limit:
            ranges.append((first, last - 1))
            first = last - 1
    return [*ranges, (first, len(ends) - 1)]


def sample_mask(segments: Segments, *, rows: int) -> Tensor:
    """What each token may see, as a dense mask: what precedes it in its sample, itself included.

    Returns:
        bool, shape (rows, 1, L, L), L = T / rows.
    """
    length = segments.num_tokens // rows
    samples = sample_numbers(segments, segments.num_tokens).view(rows, 1, length)
    tokens = samples.new_ones(length).cumsum(0)
    distance = tokens[:, None] - tokens[None]
    is_near = distance >= 0 if segments.window is None else (distance >= 0) & (distance < segments.window)
    return (samples[..., :, None] == samples[..., None, :]) & is_near


def sample_numbers(segments: Segments, num_tokens: int) -> Tensor:
    """The number of the sample of each token, shape (num_tokens,); N for tokens after the last sample."""
    import torch

    tokens = torch.arange(num_tokens, device=segments.boundaries.device, dtype=segments.boundaries.dtype)
    return torch.searchsorted(segments.boundaries[1:], tokens, right=True)

"""Torch's flex_attention with a document mask: packed rows with what the variable-length kernel cannot, such as capped
scores and float32.

transformers' own `flex_attention` builds its mask by a compiled function that is compiled again for each new condition,
and runs uncompiled after the eighth; on a GPU with torch 2.11 it let samples see each other. Here the blocks follow
from the samples' ends by arithmetic.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from component.models.varlen_kernel import Segments, sample_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

#: Tokens of a block of the mask.
BLOCK = 128
#: Rows are filled up to a multiple of this, so that few lengths are compiled.
MULTIPLE = 1024
#: Lengths, number formats and so on in one process; more are an error.
MAX_COMPILATIONS = 64


class FlexKernel:
    """flex_attention, compiled, causal inside each sample."""

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether it computes in a number format: in all."""
        return True

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, *, scale: float | None, cap: float | None
    ) -> Tensor:
        """As of `VarlenKernel`; `cap` bounds the scores: cap * tanh(score / cap)."""
        import torch

        num_tokens = query.shape[0]
        length = -(-num_tokens // MULTIPLE) * MULTIPLE
        fill = (0, 0, 0, 0, 0, length - num_tokens)
        if length not in segments.made:
            segments.made[length] = build_block_mask(segments, length)
        heads_first = (torch.nn.functional.pad(tensor, fill).transpose(0, 1)[None] for tensor in (query, key, value))
        settings = {"score_mod": _capping(cap), "block_mask": segments.made[length], "enable_gqa": True, "scale": scale}
        # Past the limit torch would go on uncompiled, which is slow and fails under gradient checkpointing.
        with torch._dynamo.config.patch(recompile_limit=MAX_COMPILATIONS):
            output = _compiled()(*heads_first, **settings)
        return output[0, :, :num_tokens].transpose(0, 1)


def build_block_mask(segments: Segments, length: int) -> BlockMask:
    """What tokens see, for flex_attention: a range of blocks for each block of tokens, and a condition inside them.

    Args:
        length: T, filled up to a multiple of BLOCK.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    samples = sample_numbers(segments, length)
    window = samples.new_tensor(segments.window or length)

    def condition(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether a query sees a key: of its own sample, not after it, and inside the window."""
        distance = query - key
        return (distance >= 0) & (distance < window) & (samples[query] == samples[key])

    blocks = torch.arange(length // BLOCK, device=samples.device)
    # The first token of a block sees the farthest back: to the begin of its sample, or to the end of its window.
    begins = torch.cat([segments.boundaries, segments.boundaries[-1:]])[samples[::BLOCK]]
    farthest = torch.maximum(begins, blocks * BLOCK - window + 1) // BLOCK
    num_seen = (blocks - farthest + 1).to(torch.int32)
    seen = (farthest[:, None] + blocks[None]).clamp(max=len(blocks) - 1).to(torch.int32)
    return BlockMask.from_kv_blocks(num_seen[None, None], seen[None, None], BLOCK_SIZE=BLOCK, mask_mod=condition)


@cache
def _capping(cap: float | None) -> Callable[..., Tensor] | None:
    """One function for each cap, so that it is compiled once."""
    if cap is None:
        return None
    import torch

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """The score, bent so that it stays between -cap and cap."""
        return cap * torch.tanh(score / cap)

    return capped


@cache
def _compiled() -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)

"""The attention implementation "varlen": packed rows on a kernel that knows where samples end, other rows as with SDPA.

It is registered under transformers' public attention and mask interfaces. Where a packed row would get a dense mask of
L x L, its layers get `Segments` instead, found once in each forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from component.models.kernel_check import Kernel, dense_attention
from component.models.varlen_kernel import Segments, sample_mask

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The name of the implementation, for transformers and in configs.
NAME = "varlen"


def register_varlen(kernel: Kernel | None) -> None:
    """Make the implementation known to transformers, in this process; again replaces it.

    Args:
        kernel: None computes packed rows with dense masks, as SDPA does.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, partial(attend, kernel=kernel))
    AttentionMaskInterface.register(NAME, build_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Segments | None,
    *,
    kernel: Kernel | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer, as transformers' interface wants it.

    Args:
        query: shape (B, H, L, D).
        key, value: shape (B, H_kv, S, D).
        attention_mask: of `build_mask`.
        softcap: bound of the scores, where a model has one.

    Returns:
        Shape (B, L, H, D), and no attention weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, _, length, _ = query.shape
    mask, tensors = attention_mask, (query, key, value)
    if torch.is_autocast_enabled(query.device.type):
        tensors = tuple(tensor.to(torch.get_autocast_dtype(query.device.type)) for tensor in tensors)
    if isinstance(mask, Segments):
        if kernel is not None and kernel.takes(tensors[0].dtype):
            assert dropout == 0, "a model with attention dropout does not get this implementation"
            flat = (tensor.transpose(1, 2).flatten(0, 1) for tensor in tensors)
            return kernel(*flat, mask, scale=scaling, cap=softcap).unflatten(0, (rows, length)), None
        mask = sample_mask(mask, rows=rows)
    if softcap is None:
        return sdpa_attention_forward(module, *tensors, mask, scaling=scaling, dropout=dropout, **kwargs)
    if mask is None:
        seen = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device)
        mask = seen.tril(key.shape[2] - length)
    return dense_attention(*tensors, mask, scale=scaling, cap=softcap, dropout=dropout), None


def build_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: Any = "cpu",
    **kwargs: Any,
) -> Tensor | Segments | None:
    """Make what the layers get as their mask: `Segments` of packed rows, SDPA's mask of all others.

    Args:
        mask_function: says of index tensors (batch, head, query, key) whether the query may see the key.
        attention_mask: bool, shape (B, L), False where padded; packed rows have none.
        allow_is_causal_skip: False for packed rows, among others.
        local_size: the sliding window, in tokens.
        use_vmap: True where a model put a condition of its own into `mask_function`.
    """
    import torch
    from transformers.masking_utils import sdpa_mask

    may_be_packed = attention_mask is None and not allow_is_causal_skip and not use_vmap and q_length == kv_length > 1
    if may_be_packed and not torch.compiler.is_compiling():
        segments = find_segments(mask_function, batch_size, q_length, window=local_size, device=device)
        if segments is not None:
            return segments
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        local_size=local_size,
        use_vmap=use_vmap,
        device=device,
        **kwargs,
    )


def find_segments(
    mask_function: Callable[..., Tensor], num_rows: int, length: int, *, window: int | None, device: Any
) -> Segments | None:
    """Where the samples of rows begin and end: a token that may not see the one before it begins a sample.

    None where tokens see what comes after them, which samples side by side do not explain.
    """
    import torch

    rows = torch.arange(num_rows, device=device)[:, None]
    head = torch.zeros((), dtype=torch.int64, device=device)
    tokens = torch.arange(length, device=device)[None]
    sees_previous = mask_function(rows, head, tokens[:, 1:], tokens[:, :-1]).expand(num_rows, -1)
    sees_next = mask_function(rows, head, tokens[:, :-1], tokens[:, 1:])
    begins = torch.nn.functional.pad(~sees_previous, (1, 0), value=True)
    ends = torch.tensor([num_rows * length], device=device)
    boundaries = torch.cat([begins.flatten().nonzero().flatten(), ends])
    max_length, is_causal = torch.stack([boundaries.diff().max(), ~sees_next.any()]).tolist()
    return Segments(boundaries.to(torch.int32), num_rows * length, max_length, window) if is_causal else None

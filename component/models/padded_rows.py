"""Rows of unequal length, padded on the right, on torch's own attention: without what costs time and does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: Families (`model_type` of config.json) whose tokens see what precedes them, and which read nothing else off a mask:
#: padding on the right is seen by no token that counts. Mixtures of experts read off it what they balance, and images
#: are seen as a whole; others are not known to do without.
UNMASKED_FAMILIES = frozenset(
    {
        "gemma", "gemma2", "gemma3_text", "glm4", "llama", "minicpm3", "mistral", "olmo3", "phi3", "qwen2", "qwen3",
        "smollm3",
    }
)  # fmt: skip
#: Implementations by which such rows go to torch's scaled_dot_product_attention. It takes its fastest kernels, and
#: repeats no key heads, where there is no mask.
ON_SDPA = ("sdpa", "varlen")
#: cuDNN's attention prepares itself for each shape that it has not seen, forward and backward 0.1 to 0.3 s on an H200;
#: so many lengths it may see.
FEW_LENGTHS = 16


def needs_mask(model_config: Mapping[str, Any], attention: str) -> bool:
    """Whether rows that are padded on the right come with a mask.

    Args:
        model_config: config.json; some families have checkpoints whose tokens see those after them as well.
        attention: the implementation, by transformers' names and our `varlen`.
    """
    looks_ahead = model_config.get("is_causal") is False or model_config.get("use_bidirectional_attention")
    is_known = model_config.get("model_type") in UNMASKED_FAMILIES
    return bool(attention not in ON_SDPA or looks_ahead or not is_known)


def settle_cudnn(lengths: Iterable[int]) -> str:
    """Let torch take cuDNN's attention by itself in this process, or not.

    Args:
        lengths: of all rows that are not packed, in tokens.

    Returns:
        What was settled, for run.json.
    """
    import torch

    number = len(set(lengths))
    torch.backends.cuda.enable_cudnn_sdp(number <= FEW_LENGTHS)
    if number <= FEW_LENGTHS:
        return "where torch takes it"
    return f"off: rows have {number} lengths, for each of which it prepares itself"

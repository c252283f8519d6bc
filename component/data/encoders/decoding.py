"""The text that token ids stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decode_exactly(tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int]) -> str:
    """Decode ids with their special tokens and without touching spaces; a cut character becomes U+FFFD."""
    return tokenizer.decode(list(input_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

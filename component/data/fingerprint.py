"""Hashes of what decides the tokens of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fingerprint(file_hashes: Sequence[str], options: Mapping[str, Any]) -> str:
    """Return a SHA-256 (hex) of all that decides the tokens; one other byte in a data file makes another.

    Args:
        file_hashes: content hash of each data file, in order.
        options: hashes of tokenizer and rendering, lengths and other settings, JSON-ready.
    """
    return hashlib.sha256(json.dumps([list(file_hashes), options], sort_keys=True).encode()).hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 (hex) of how a fast tokenizer makes tokens: vocabulary, merges, normalisation, added tokens.

    Its special tokens count too; its padding and truncation settings, which each call changes, do not.
    """
    written = tokenizer.backend_tokenizer.to_str()
    settings_end = written.index('"added_tokens"')
    specials = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    splits = "special tokens are split" if tokenizer.split_special_tokens else ""
    return hashlib.sha256((written[settings_end:] + specials + splits).encode()).hexdigest()

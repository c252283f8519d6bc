"""Texts to token ids in batches, and which token a character belongs to, without a list of all offsets.

A tokenizer's own offsets cost a quarter of its time. Where the tokens of a text are exactly its bytes, as in byte-level
BPE, their places follow from their lengths; the sum proves it for each text. Elsewhere the tokenizer is asked.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TokensWithOffsets:
    """The tokens of a text; the tokenizer knows the characters of each."""

    text: str
    input_ids: tuple[int, ...]
    encoding: Encoding

    def first_from(self, position: int) -> int:
        """The first token whose first visible character stands at `position` or after; the number of tokens if none.

        A token of whitespace alone counts as standing where it begins.
        """
        return bisect_left(range(len(self.input_ids)), position, key=self._first_visible)

    def containing(self, position: int) -> int:
        """The first token with a part of the character at `position`."""
        token = self.encoding.char_to_token(position)
        return self.first_from(position) if token is None else token

    def _first_visible(self, token: int) -> int:
        start, end = self.encoding.token_to_chars(token)
        visible = end - len(self.text[start:end].lstrip())
        return visible if visible < end else start


@dataclass(frozen=True, slots=True)
class TokensOfBytes:
    """The tokens of a text that are its bytes, one token after the other.

    Attributes:
        ends: where each token ends, in bytes after `begin`.
        begin: where the text begins in `ends`.
    """

    text: str
    input_ids: tuple[int, ...]
    ends: np.ndarray
    begin: int

    def first_from(self, position: int) -> int:
        """See `TokensWithOffsets`."""
        at = position if self.text.isascii() else len(self.text[:position].encode())
        token = int(self.ends.searchsorted(self.begin + at, side="right"))
        start = int(self.ends[token - 1]) - self.begin if token else 0
        if token == len(self.input_ids) or start >= at:
            return token
        return token if self._is_visible_from(at, start, int(self.ends[token]) - self.begin) else token + 1

    def containing(self, position: int) -> int:
        """See `TokensWithOffsets`."""
        at = position if self.text.isascii() else len(self.text[:position].encode())
        return int(self.ends.searchsorted(self.begin + at, side="right"))

    def _is_visible_from(self, at: int, start: int, end: int) -> bool:
        """Whether the characters of a token are whitespace before a byte and visible ones after; torn ones count."""
        data = self.text.encode()
        while _continues_a_character(data, start):
            start -= 1
        while end < len(data) and _continues_a_character(data, end):
            end += 1
        return data[start:at].decode().isspace() and not data[at:end].decode().isspace()


TokenizedText = TokensWithOffsets | TokensOfBytes


class BatchEncoder:
    """Encodes texts without special tokens around them, as `tokenizer(texts, add_special_tokens=False)` does.

    Args:
        backend: the Rust tokenizer of a fast tokenizer.
        split_special_tokens: whether special tokens that a text spells out are plain text.
        own_ids: ids to give instead of the backend's, where they differ.
    """

    def __init__(
        self, backend: Tokenizer, *, split_special_tokens: bool = False, own_ids: Mapping[int, int] | None = None
    ) -> None:
        self._backend = backend
        self._split_special_tokens = split_special_tokens
        self._own_ids = own_ids

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> BatchEncoder:
        """The encoder of a fast tokenizer, with its own treatment of special tokens."""
        return cls(tokenizer.backend_tokenizer, split_special_tokens=tokenizer.split_special_tokens)

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids alone."""
        self._reset()
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._translated(encoding.ids) for encoding in encodings]

    def encode(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Ids of texts, each with a way to find the token at a character."""
        if self._token_sizes is None:
            return self._encode_with_offsets(texts)
        self._reset()
        ids = [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        lasts = list(itertools.accumulate(map(len, ids), initial=0))
        flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64, count=lasts[-1])
        ends = np.concatenate(([0], np.cumsum(self._token_sizes[flat])))
        begins = ends[lasts].tolist()
        tokens: list[TokenizedText] = [
            TokensOfBytes(text, tuple(self._translated(ids[row])), ends[lasts[row] + 1 : lasts[row + 1] + 1], begin)
            for row, (text, begin) in enumerate(zip(texts, begins, strict=False))
        ]
        others = [row for row, text in enumerate(texts) if not self._is_made_of(text, begins[row + 1] - begins[row])]
        for row, with_offsets in zip(others, self._encode_with_offsets([texts[row] for row in others]), strict=True):
            tokens[row] = with_offsets
        return tokens

    def _encode_with_offsets(self, texts: Sequence[str]) -> list[TokenizedText]:
        self._reset()
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            TokensWithOffsets(text, tuple(self._translated(encoding.ids)), encoding)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _reset(self) -> None:
        """Undo what other calls of the tokenizer leave behind, as its own calls do.

        Only where something is to undo: the backend cannot be changed while another thread encodes with it.
        """
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()
        if self._backend.encode_special_tokens != self._split_special_tokens:
            self._backend.encode_special_tokens = self._split_special_tokens

    def _translated(self, ids: list[int]) -> list[int]:
        return ids if self._own_ids is None else [self._own_ids.get(id, id) for id in ids]

    def _is_made_of(self, text: str, num_bytes: int) -> bool:
        """Whether the tokens of a text, which have so many bytes, are its bytes and nothing else."""
        if text.isascii():
            return num_bytes == len(text)
        # NFC is the one normalizer that `_token_sizes` lets through; a text in NFC is not changed by it.
        return num_bytes == len(text.encode()) and unicodedata.is_normalized("NFC", text)

    @cached_property
    def _token_sizes(self) -> np.ndarray | None:
        """The number of bytes of each token, by id; None where tokens may be other than the bytes of the text."""
        if not _is_byte_level(self._backend):
            return None
        sizes = {id: len(token) for token, id in self._backend.get_vocab(with_added_tokens=False).items()}
        sizes |= {id: len(token.content.encode()) for id, token in self._backend.get_added_tokens_decoder().items()}
        by_id = np.zeros(max(sizes) + 1, dtype=np.int64)
        by_id[list(sizes)] = list(sizes.values())
        return by_id


def _is_byte_level(backend: Tokenizer) -> bool:
    """Whether every byte of a text in NFC ends up in exactly one token, whose name has one letter for each byte."""
    model, before = backend.model, _state(backend.pre_tokenizer)
    steps = before.get("pretokenizers", [before])
    of_bytes = [step for step in steps if step.get("type") == "ByteLevel"]
    added = backend.get_added_tokens_decoder().values()
    return (
        isinstance(model, BPE)
        and not model.continuing_subword_prefix
        and not model.end_of_word_suffix
        and all(model.token_to_id(letter) is not None for letter in ByteLevel.alphabet())
        and len(of_bytes) == 1
        and not of_bytes[0]["add_prefix_space"]
        and _state(backend.normalizer).get("type") in (None, "NFC")
        and not any(token.lstrip or token.rstrip for token in added)
    )


def _state(part: Any) -> dict[str, Any]:
    """What a part of a tokenizer consists of, as tokenizer.json writes it."""
    return {} if part is None else json.loads(part.__getstate__())


def _continues_a_character(data: bytes, index: int) -> bool:
    return data[index] & 0xC0 == 0x80

"""Samples as text again: in pieces that are supervised or not, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from component.artifacts.data_facts import Pieces, ShownRow, ShownSample
from component.data.chunks import Sample
from component.data.encoders.decoding import decode_exactly
from component.data.rows import Prepared, PreparedPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shown_sample(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> ShownSample:
    """A sample with the text of its tokens."""
    label = getattr(sample, "label", None)
    title = "" if label is None else f"label {json.dumps(label)}"
    parts = ((name or title, decode_pieces(part, tokenizer)) for name, part in parts_of(sample))
    return ShownSample(shown_row(sample), tuple(parts))


def shown_row(sample: Sample) -> ShownRow:
    """Where a sample came from and how long it is; of a pair, both together."""
    return ShownRow(str(sample.source), sample.num_tokens, sample.num_supervised_tokens)


def parts_of(sample: Sample) -> tuple[tuple[str, Prepared], ...]:
    """A sample under an empty name, or the two of a pair under theirs."""
    if isinstance(sample, PreparedPair):
        return (("chosen", sample.chosen), ("rejected", sample.rejected))
    return (("", sample),)


def decode_pieces(sample: Prepared, tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """Text of a sample in pieces, supervised ones and those between them in turn, special tokens included.

    Which tokens are supervised is what the labels say; nothing predicts the first token, so it never is.
    """
    pieces, text, position = [], "", 0
    for end, is_supervised in _ends(sample):
        if end > position:
            # A tokenizer may write the beginning of a text otherwise than the same tokens within it.
            longer = decode_exactly(tokenizer, sample.input_ids[:end])
            piece = longer[len(text) :] if longer.startswith(text) else None
            pieces.append((decode_exactly(tokenizer, sample.input_ids[position:end]) if piece is None else piece,
                           is_supervised))  # fmt: skip
            text, position = longer, end
    return tuple(pieces)


def _ends(sample: Prepared) -> Iterator[tuple[int, bool]]:
    for start, end in sample.spans:
        yield max(start, 1), False
        yield end, True
    yield sample.length, False

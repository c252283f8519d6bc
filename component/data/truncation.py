"""Samples longer than the limit: cutting a conversation, splitting a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from component.config.errors import DataError
from component.data.rows import EncodedRow, Prepared, RowError, Source


@dataclass(frozen=True)
class LengthLimit:
    """How long a sample may be in tokens, at least 2, and what happens to a longer one (the config's `truncation`)."""

    max_seq_length: int
    truncation: str

    def facts(self) -> dict[str, Any]:
        """The limit as JSON-ready values."""
        return asdict(self)


def cut_sample(sample: Prepared, limit: LengthLimit) -> EncodedRow:
    """Cut a sample that is too long.

    Raises:
        RowError: `truncation` is drop, or the cut leaves no supervised token.
        DataError: `truncation` is error.
    """
    if limit.truncation == "error":
        raise DataError(
            f"{sample.source}: {sample.length} tokens, over max_seq_length {limit.max_seq_length}; "
            "raise max_seq_length, or set truncation to drop, keep_start, keep_end or split_turns"
        )
    if limit.truncation == "drop":
        raise RowError(f"over max_seq_length: {sample.length} tokens, {limit.max_seq_length} allowed")
    keeps_start = limit.truncation == "keep_start"
    cut = (keep_start if keeps_start else keep_end)(sample, limit.max_seq_length)
    return EncodedRow(
        (cut,),
        num_tokens_cut=sample.length - cut.length,
        is_without_stop=keeps_start and loses_stop_token(sample, limit.max_seq_length),
    )


def keep_start(sample: Prepared, max_seq_length: int) -> Prepared:
    """Cut a sample to its first `max_seq_length` tokens.

    Raises:
        RowError: no supervised token is left.
    """
    spans = tuple((start, min(end, max_seq_length)) for start, end in sample.spans if start < max_seq_length)
    if not any(end > max(start, 1) for start, end in spans):  # nothing predicts the very first token
        raise RowError(
            f"no supervised token left: the prompt fills max_seq_length {max_seq_length}, "
            f"the row has {sample.length} tokens"
        )
    return Prepared(sample.input_ids[:max_seq_length], spans, sample.source)


def keep_end(sample: Prepared, max_seq_length: int) -> Prepared:
    """Cut a sample to its last `max_seq_length` tokens: its last stop token stays, BOS and system text go.

    Raises:
        RowError: no supervised token is left.
    """
    removed = sample.length - max_seq_length
    spans = tuple((max(start - removed, 0), end - removed) for start, end in sample.spans if end > removed)
    if not any(end > max(start, 1) for start, end in spans):
        raise RowError(
            f"no supervised token left: the last question fills max_seq_length {max_seq_length}, "
            f"the row has {sample.length} tokens"
        )
    return Prepared(sample.input_ids[removed:], spans, sample.source)


def loses_stop_token(sample: Prepared, max_seq_length: int) -> bool:
    """Whether cutting at `max_seq_length` ends the sample inside an answer."""
    return any(start < max_seq_length < end for start, end in sample.spans)


def split_document(token_ids: Sequence[int], max_seq_length: int, source: Source) -> list[Prepared]:
    """Split a document into consecutive pieces of at most `max_seq_length` tokens, every token supervised.

    A piece begins with the last token of the piece before, as context: its own first token is predicted by nothing,
    so that without this overlap one token a piece would never be learned.

    Args:
        token_ids: the document, at least two tokens.
        max_seq_length: at least 2.
        source: the row.

    Returns:
        Pieces whose supervised tokens, put together, are all tokens of the document but the first.
    """
    assert len(token_ids) > 1 and max_seq_length > 1
    pieces = []
    for start in range(0, len(token_ids) - 1, max_seq_length - 1):
        piece = tuple(token_ids[start : start + max_seq_length])
        pieces.append(Prepared(piece, ((1, len(piece)),), source))
    return pieces

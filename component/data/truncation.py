"""Samples longer than the limit: cutting a conversation, splitting a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from component.config.errors import DataError
from component.data.rows import EncodedRow, Prepared, PreparedPair, RowError, Source
from component.registry import TRUNCATIONS


@dataclass(frozen=True)
class LengthLimit:
    """How long a sample may be, and what happens to a longer one.

    Attributes:
        max_seq_length: in tokens, at least 2.
        truncation: the config's.
        choices: what `truncation` may be for rows of this kind.
        max_completion_length: tokens that stay free behind a sample; what is left of max_seq_length is its limit.
    """

    max_seq_length: int
    truncation: str
    choices: Sequence[str] = TRUNCATIONS["messages"]
    max_completion_length: int = 0

    @property
    def num_tokens(self) -> int:
        """The most tokens of a sample."""
        return self.max_seq_length - self.max_completion_length

    def facts(self) -> dict[str, Any]:
        """What decides the tokens, as JSON-ready values."""
        return {"max_seq_length": self.num_tokens, "truncation": self.truncation}

    def refuse(self, source: Source, num_tokens: str) -> None:
        """Raise for a sample that is too long, unless it may be cut.

        Args:
            source: the row.
            num_tokens: how many tokens it has, in words.

        Raises:
            RowError: `truncation` is drop.
            DataError: `truncation` is error.
        """
        beside = f" beside max_completion_length {self.max_completion_length}" if self.max_completion_length else ""
        if self.truncation == "drop":
            raise RowError(f"over max_seq_length: {num_tokens}, {self.num_tokens} allowed{beside}")
        if self.truncation == "error":
            *others, last = (name for name in self.choices if name != "error")
            raise DataError(
                f"{source}: {num_tokens}, over max_seq_length {self.max_seq_length}{beside}; "
                f"raise max_seq_length, or set truncation to {', '.join(others)} or {last}"
            )


def cut_sample(sample: Prepared, limit: LengthLimit) -> EncodedRow:
    """Cut a sample that is too long.

    Raises:
        RowError: `truncation` is drop, or the cut leaves no supervised token.
        DataError: `truncation` is error.
    """
    limit.refuse(sample.source, f"{sample.length} tokens")
    keeps_start = limit.truncation == "keep_start"
    cut = (keep_start if keeps_start else keep_end)(sample, limit.max_seq_length)
    return EncodedRow(
        (cut,),
        num_tokens_cut=sample.length - cut.length,
        is_without_stop=keeps_start and loses_stop_token(sample, limit.max_seq_length),
    )


def cut_prompt(prompt: Prepared, limit: LengthLimit) -> EncodedRow:
    """Cut a prompt that is too long to its last tokens, behind which the answer begins.

    Raises:
        RowError: `truncation` is drop.
        DataError: `truncation` is error.
    """
    limit.refuse(prompt.source, f"{prompt.length} tokens")
    cut = replace(prompt, input_ids=prompt.input_ids[-limit.num_tokens :], text=None)
    return EncodedRow((cut,), num_tokens_cut=prompt.length - cut.length)


def cut_pair(pair: PreparedPair, limit: LengthLimit) -> EncodedRow:
    """Cut a preference that is too long: its answers at their end, or its prompt at its start, alike on both sides.

    Raises:
        RowError: `truncation` is drop, or the cut leaves nothing to compare.
        DataError: `truncation` is error.
    """
    lengths = f"chosen has {pair.chosen.length} tokens, rejected {pair.rejected.length}"
    limit.refuse(pair.source, lengths)
    prompt_length, max_length = pair.chosen.spans[0][0], limit.max_seq_length
    removed = pair.length - max_length
    if limit.truncation == "keep_end":
        if removed >= prompt_length:
            raise RowError(
                f"preference truncated to nothing: an answer of {pair.length - prompt_length} tokens leaves no room "
                f"for its prompt in max_seq_length {max_length}"
            )
        short = PreparedPair(_without_start(pair.chosen, removed), _without_start(pair.rejected, removed))
        return EncodedRow((short,), num_tokens_cut=2 * removed)
    sides = (pair.chosen, pair.rejected)
    try:
        chosen, rejected = (keep_start(side, max_length) if side.length > max_length else side for side in sides)
    except RowError:
        raise RowError(
            f"preference truncated to nothing: the prompt has {prompt_length} tokens and fills "
            f"max_seq_length {max_length}"
        ) from None
    if chosen.input_ids == rejected.input_ids:
        raise RowError(f"preference truncated to nothing: chosen equals rejected up to max_seq_length {max_length}")
    return EncodedRow(
        (PreparedPair(chosen, rejected),),
        num_tokens_cut=sum(side.length for side in sides) - chosen.length - rejected.length,
        is_without_stop=any(loses_stop_token(side, max_length) for side in sides),
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
    return replace(sample, input_ids=sample.input_ids[:max_seq_length], spans=spans, text=None)


def keep_end(sample: Prepared, max_seq_length: int) -> Prepared:
    """Cut a sample to its last `max_seq_length` tokens: its last stop token stays, BOS and system text go.

    Raises:
        RowError: no supervised token is left.
    """
    cut = _without_start(sample, sample.length - max_seq_length)
    if not any(end > max(start, 1) for start, end in cut.spans):
        raise RowError(
            f"no supervised token left: the last question fills max_seq_length {max_seq_length}, "
            f"the row has {sample.length} tokens"
        )
    return cut


def _without_start(sample: Prepared, removed: int) -> Prepared:
    """The sample without that many of its first tokens."""
    spans = tuple((max(start - removed, 0), end - removed) for start, end in sample.spans if end > removed)
    return replace(sample, input_ids=sample.input_ids[removed:], spans=spans, text=None)


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

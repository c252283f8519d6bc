"""Preferences to pairs of samples that begin with the same prompt, the answers alone supervised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from component.data.encoders.decoding import decode_exactly
from component.data.encoders.whole_rows import WholeRowEncoder
from component.data.formats.prompts import as_context
from component.data.rendered import Encoded
from component.data.rows import EncodedRow, Message, Prepared, PreparedPair, Row, RowError, Segment
from component.data.truncation import LengthLimit, cut_pair


class PairEncoder:
    """Encodes a preference as two whole conversations, or as two whole texts where the prompt is plain text.

    Each side is what sft would make of the prompt with that answer. A pair is used only where both begin with the same
    tokens, up to where each answer begins: else a tokenizer that merges the end of the prompt with an answer, or a
    template that renders a prompt by what follows, would compare answers to different prompts.

    Args:
        encoder: of whole rows.
        limit: on the length of each side.
        keep_text: see `RowEncoder`.
    """

    row_kind = "preference"

    def __init__(self, encoder: WholeRowEncoder, limit: LengthLimit, *, keep_text: bool = False) -> None:
        self.keep_text = keep_text
        self._encoder = encoder
        self._limit = limit

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode rows with `chosen` and `rejected`; see `RowEncoder`.

        Raises:
            DataError: a row is over the length limit, and `truncation` is error.
            UserError: a row has messages, and there is no template.
        """
        chosen = self._encoder.encode_answers([_with_answer(row, row.chosen) for row in rows])
        rejected = self._encoder.encode_answers([_with_answer(row, row.rejected) for row in rows])
        return [self._pair_or_error(*sides) for sides in zip(rows, chosen, rejected, strict=True)]

    def facts(self) -> dict[str, Any]:
        """See `RowEncoder`."""
        return {"row_kind": self.row_kind, **self._encoder.facts(), **self._limit.facts()}

    def _pair_or_error(
        self, row: Row, chosen: Encoded | RowError, rejected: Encoded | RowError
    ) -> EncodedRow | RowError:
        for side, encoded in (("chosen", chosen), ("rejected", rejected)):
            if isinstance(encoded, RowError):
                return RowError(f"{encoded} (in {side})")
        assert isinstance(chosen, Encoded) and isinstance(rejected, Encoded)
        try:
            _check_prompts(chosen, rejected)
            pair = PreparedPair(self._prepare(row, chosen), self._prepare(row, rejected))
            fitted = EncodedRow((pair,)) if pair.length <= self._limit.max_seq_length else self._cut(pair)
        except RowError as error:
            return error
        return replace(fitted, notices=tuple(dict.fromkeys((*chosen.notices, *rejected.notices))))

    def _prepare(self, row: Row, encoded: Encoded) -> Prepared:
        return Prepared(encoded.input_ids, encoded.spans, row.source, encoded.text if self.keep_text else None)

    def _cut(self, pair: PreparedPair) -> EncodedRow:
        """Cut a pair that is too long.

        Raises:
            RowError, DataError: as `cut_pair`.
        """
        cut = cut_pair(pair, self._limit)
        if not self.keep_text:
            return cut
        (short,) = cut.samples
        assert isinstance(short, PreparedPair)
        chosen, rejected = (
            whole if side.length == whole.length else replace(side, text=self._decode(side))
            for side, whole in ((short.chosen, pair.chosen), (short.rejected, pair.rejected))
        )
        return replace(cut, samples=(PreparedPair(chosen, rejected),))

    def _decode(self, sample: Prepared) -> str:
        return decode_exactly(self._encoder.tokenizer, sample.input_ids)


def _with_answer(row: Row, answer: tuple[Message, ...] | str | None) -> Row:
    """The row of a prompt and one of its answers, as sft would read it."""
    assert answer is not None, "a preference has both answers"
    if isinstance(answer, str):
        pieces = (Segment(row.text or "", False), Segment(answer, True))
        return Row(row.source, segments=pieces, ends_with_eos=True)
    return Row(row.source, messages=(*as_context(row.messages), *answer), tools=row.tools)


def _check_prompts(chosen: Encoded, rejected: Encoded) -> None:
    """Check that two whole rows are answers to one prompt, token for token.

    Raises:
        RowError: they are not, or are the same.
    """
    if chosen.input_ids == rejected.input_ids:
        raise RowError("chosen equals rejected: both become the same tokens")
    (start, _), (other, _) = chosen.spans[0], rejected.spans[0]
    if chosen.input_ids[:start] != rejected.input_ids[:other]:
        raise RowError("different prompts: the prompt becomes other tokens before chosen than before rejected")

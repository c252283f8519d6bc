"""Conversations, and texts that no template is put around, to samples whose answers are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from component.data.encoders.decoding import decode_exactly
from component.data.encoders.whole_rows import WholeRowEncoder
from component.data.rendered import Encoded
from component.data.rows import EncodedRow, Prepared, Row, RowError
from component.data.truncation import LengthLimit, cut_sample


class ConversationEncoder:
    """Encodes conversations and segments within the length limit; a row's label goes with its sample.

    Args:
        encoder: of whole rows.
        limit: on the length of a sample.
        row_kind: "messages", or "labelled" where the answers have labels.
        keep_text: see `RowEncoder`.
    """

    def __init__(
        self, encoder: WholeRowEncoder, limit: LengthLimit, *, row_kind: str = "messages", keep_text: bool = False
    ) -> None:
        self.row_kind = row_kind
        self.keep_text = keep_text
        self._encoder = encoder
        self._limit = limit

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode rows with `messages` or `segments`; see `RowEncoder`.

        Raises:
            DataError: a row is over the length limit, and `truncation` is error.
            UserError: a row has messages, and there is no template.
        """
        encoded = self._encoder.encode_answers(rows)
        return [self._fit_or_error(row, item) for row, item in zip(rows, encoded, strict=True)]

    def facts(self) -> dict[str, Any]:
        """See `RowEncoder`."""
        return {"row_kind": self.row_kind, **self._encoder.facts(), **self._limit.facts()}

    def _fit_or_error(self, row: Row, encoded: Encoded | RowError) -> EncodedRow | RowError:
        if isinstance(encoded, RowError):
            return encoded
        try:
            return replace(self._fit(row, encoded), notices=encoded.notices)
        except RowError as error:
            return error

    def _fit(self, row: Row, encoded: Encoded) -> EncodedRow:
        """Make samples of an encoded row within the length limit.

        Raises:
            RowError: it is too long, and `truncation` does not mend that.
            DataError: it is too long, and `truncation` is error.
        """
        sample = self._prepare(row, encoded)
        if sample.length <= self._limit.max_seq_length:
            return EncodedRow((sample,))
        if self._limit.truncation == "split_turns":
            return self._split_turns(row, sample)
        cut = cut_sample(sample, self._limit)
        if not self.keep_text:
            return cut
        tokenizer = self._encoder.tokenizer
        return replace(
            cut, samples=tuple(replace(piece, text=decode_exactly(tokenizer, piece.input_ids)) for piece in cut.samples)
        )

    def _split_turns(self, row: Row, sample: Prepared) -> EncodedRow:
        """Split a conversation that is too long between its turns.

        Raises:
            RowError: it has no turns, or no turn that is learned fits.
        """
        limit = self._limit.max_seq_length
        too_long = f"over max_seq_length: {sample.length} tokens, {limit} allowed"
        if row.segments:
            raise RowError(f"{too_long}, and no turns to split")
        pieces, tokens_left_out = self._encoder.encode_split(row, limit)
        if not pieces:
            raise RowError(f"{too_long}, and no single turn fits")
        return EncodedRow(tuple(self._prepare(row, piece) for piece in pieces), num_tokens_cut=tokens_left_out)

    def _prepare(self, row: Row, encoded: Encoded) -> Prepared:
        text = encoded.text if self.keep_text else None
        return Prepared(encoded.input_ids, encoded.spans, row.source, text, row.label)

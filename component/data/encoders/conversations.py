"""Conversations, and pieces of text that no template is put around, to samples whose answers are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from component.data.encoders.decoding import decode_exactly
from component.data.encoders.segments import SegmentEncoder
from component.data.fingerprint import hash_tokenizer
from component.data.render import Renderer
from component.data.rendered import Encoded
from component.data.rows import EncodedRow, Prepared, Row, RowError
from component.data.templates import load_chat_template
from component.data.truncation import LengthLimit, cut_sample


class ConversationEncoder:
    """Encodes conversations with a chat template, and rows of segments as they are.

    Args:
        renderer: of conversations; None where the tokenizer has no template, and rows of segments alone can be read.
        segments: the encoder of segments.
        limit: on the length of a sample.
        keep_text: see `RowEncoder`.
    """

    row_kind = "messages"

    def __init__(
        self, renderer: Renderer | None, segments: SegmentEncoder, limit: LengthLimit, *, keep_text: bool = False
    ) -> None:
        self.keep_text = keep_text
        self._renderer = renderer
        self._segments = segments
        self._limit = limit
        self._tokenizer = segments.tokenizer

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode rows with `messages` or `segments`; see `RowEncoder`.

        Raises:
            DataError: a row is over the length limit, and `truncation` is error.
            UserError: a row has messages, and there is no template.
        """
        pieces = iter(self._segments.encode_batch([row for row in rows if row.segments]))
        conversations = iter(self._encode_messages([row for row in rows if not row.segments]))
        return [self._fit_or_error(row, next(pieces if row.segments else conversations)) for row in rows]

    def facts(self) -> dict[str, Any]:
        """See `RowEncoder`."""
        return {
            "row_kind": self.row_kind,
            "tokenizer": hash_tokenizer(self._tokenizer),
            "rendering": None if self._renderer is None else self._renderer.fingerprint(),
            "segments": self._segments.facts(),
            **self._limit.facts(),
        }

    def _encode_messages(self, rows: Sequence[Row]) -> list[Encoded | RowError]:
        if not rows:
            return []
        if self._renderer is None:
            load_chat_template("auto", self._tokenizer)  # says that there is none, and what to do
        assert self._renderer is not None
        return self._renderer.encode_batch([(row.messages, row.tools) for row in rows])

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
            RowError: nothing in it is supervised, or it is too long and `truncation` does not mend it.
            DataError: it is too long and `truncation` is error.
        """
        sample = Prepared(encoded.input_ids, encoded.spans, row.source, encoded.text if self.keep_text else None)
        if not any(end > max(start, 1) for start, end in sample.spans):
            raise RowError("no supervised token: the template renders no answer to learn")
        if sample.length <= self._limit.max_seq_length:
            return EncodedRow((sample,))
        if self._limit.truncation == "split_turns":
            return self._split_turns(row, sample)
        cut = cut_sample(sample, self._limit)
        if not self.keep_text:
            return cut
        texts = (replace(piece, text=decode_exactly(self._tokenizer, piece.input_ids)) for piece in cut.samples)
        return replace(cut, samples=tuple(texts))

    def _split_turns(self, row: Row, sample: Prepared) -> EncodedRow:
        """Split a conversation that is too long between its turns.

        Raises:
            RowError: it has no turns, or no turn that is learned fits.
        """
        limit = self._limit.max_seq_length
        too_long = f"over max_seq_length: {sample.length} tokens, {limit} allowed"
        if row.segments or self._renderer is None:
            raise RowError(f"{too_long}, and no turns to split")
        pieces, tokens_left_out = self._renderer.encode_split(row.messages, row.tools, limit)
        if not pieces:
            raise RowError(f"{too_long}, and no single turn fits")
        texts = [piece.text if self.keep_text else None for piece in pieces]
        samples = (
            Prepared(piece.input_ids, piece.spans, row.source, text) for piece, text in zip(pieces, texts, strict=True)
        )
        return EncodedRow(tuple(samples), num_tokens_cut=tokens_left_out)

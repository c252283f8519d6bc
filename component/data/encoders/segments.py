"""Pieces of text without a template to token ids, of which those of the supervised pieces are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from component.data.batch_encoding import BatchEncoder
from component.data.content_controls import PlainTextControls
from component.data.rendered import Encoded, Rendered, to_tokens
from component.data.rows import Row, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_STOP = "the last supervised segment does not end with the EOS token"


class SegmentEncoder:
    """Encodes the segments of a row as the one text that they make together.

    The text is encoded as it is, control tokens included, unless they are a reason to reject it. BOS stands before it
    where the tokenizer normally writes one and the text does not; EOS after it where the row asks for it and the text
    does not end with one. A token that straddles two segments belongs to the one in which its first visible character
    lies.

    Args:
        tokenizer: any tokenizer.
        append_stop_token: end rows whose last segment is supervised with EOS, also where they do not ask for it.
        train_on_prompt: learn the prompt of a prompt with completion too; segments say themselves what is learned.
        content_control_tokens: "reject" refuses rows that spell out control tokens; else they are counted.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        append_stop_token: bool = False,
        train_on_prompt: bool = False,
        content_control_tokens: Literal["text", "control", "reject"] = "text",
    ) -> None:
        self.tokenizer = tokenizer
        self._encoder = BatchEncoder.of(tokenizer)
        self.append_stop_token = append_stop_token
        self.train_on_prompt = train_on_prompt
        self._rejects_controls = content_control_tokens == "reject"
        self._controls = PlainTextControls(tokenizer, rejects=self._rejects_controls)
        bos = tokenizer.bos_token_id
        self._bos = () if bos is None or tokenizer("a")["input_ids"][:1] != [bos] else (bos,)

    def encode_batch(self, rows: Sequence[Row]) -> list[Encoded | RowError]:
        """Encode many rows at once.

        Args:
            rows: each with segments.

        Returns:
            For each row, in order, its ids and spans, or the error that says why it cannot be used.
        """
        if not rows:
            return []
        texts = [self._join_or_error(row) for row in rows]
        tokens = iter(self._encoder.encode([text.text for text in texts if isinstance(text, Rendered)]))
        return [
            text if isinstance(text, RowError) else self._frame(row, to_tokens(text, next(tokens)))
            for row, text in zip(rows, texts, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        """The options that decide the tokens, as JSON-ready values."""
        return {
            "append_stop_token": self.append_stop_token,
            "train_on_prompt": self.train_on_prompt,
            "rejects_control_tokens": self._rejects_controls,
        }

    def _join_or_error(self, row: Row) -> Rendered | RowError:
        try:
            return self._join(row)
        except RowError as error:
            return error

    def _join(self, row: Row) -> Rendered:
        """The text of a row and its supervised characters; neighbouring supervised segments are one span.

        Raises:
            RowError: it spells out control tokens, and such rows are rejected.
        """
        pieces: list[str] = []
        spans: list[tuple[int, int]] = []
        position = 0
        for segment in row.segments:
            end = position + len(segment.text)
            if segment.text and (segment.supervised or (self.train_on_prompt and row.ends_with_eos)):
                is_next = bool(spans) and spans[-1][1] == position
                start = spans.pop()[0] if is_next else position
                spans.append((start, end))
            pieces.append(segment.text)
            position = end
        text = "".join(pieces)
        return Rendered(text, tuple(spans), notices=self._controls.check(text))

    def _frame(self, row: Row, encoded: Encoded | RowError) -> Encoded | RowError:
        """Put BOS and EOS around a text."""
        if isinstance(encoded, RowError):
            return encoded
        ids, spans, notices, text = encoded.input_ids, encoded.spans, encoded.notices, encoded.text
        if self._bos and ids[:1] != self._bos:
            ids, spans = (*self._bos, *ids), tuple((start + 1, end + 1) for start, end in spans)
            text = self.tokenizer.bos_token + text
        eos = self.tokenizer.eos_token_id
        is_supervised_to_the_end = bool(spans) and spans[-1][1] == len(ids)
        if eos is not None and is_supervised_to_the_end and ids[-1] != eos:
            if row.ends_with_eos or self.append_stop_token:
                ids, spans = (*ids, eos), (*spans[:-1], (spans[-1][0], len(ids) + 1))
                text += self.tokenizer.eos_token
            else:
                notices = (*notices, NO_STOP)
        return Encoded(ids, spans, notices, text)

"""Rows of messages or of pieces of text to token ids of whatever length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from component.data.encoders.segments import SegmentEncoder
from component.data.fingerprint import hash_tokenizer
from component.data.render import Renderer
from component.data.rendered import Encoded
from component.data.rows import Row, RowError, Segment
from component.data.templates import load_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class WholeRowEncoder:
    """Encodes conversations with a chat template, and texts as they are; what is cut, others decide.

    Every method raises UserError where a row has messages and there is no template.

    Args:
        tokenizer: any tokenizer.
        renderer: of conversations; None where the tokenizer has no template, and texts alone can be encoded.
        append_stop_token, train_on_prompt, content_control_tokens: see `SegmentEncoder`; the renderer has its own.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        renderer: Renderer | None,
        *,
        append_stop_token: bool = False,
        train_on_prompt: bool = False,
        content_control_tokens: Literal["text", "control", "reject"] = "text",
    ) -> None:
        self.tokenizer = tokenizer
        self._renderer = renderer
        self._segments = SegmentEncoder(
            tokenizer,
            append_stop_token=append_stop_token,
            train_on_prompt=train_on_prompt,
            content_control_tokens=content_control_tokens,
        )

    def encode_answers(self, rows: Sequence[Row]) -> list[Encoded | RowError]:
        """Encode rows with `messages` or `segments`.

        Returns:
            For each row, in order, its ids and supervised spans, at least one token of which can be learned; or the
            error that says why it cannot be used.
        """
        pieces = iter(self._segments.encode_batch([row for row in rows if row.segments]))
        of_messages = [(row.messages, row.tools) for row in rows if not row.segments]
        conversations = iter(self._need_renderer().encode_batch(of_messages) if of_messages else ())
        return [_check_learns(next(pieces if row.segments else conversations)) for row in rows]

    def encode_prompts(self, rows: Sequence[Row]) -> list[Encoded | RowError]:
        """Encode rows with `messages`, up to where the answer begins, or with `text`.

        Returns:
            For each row, in order, its ids, or the error that says why it cannot be used.
        """
        of_text = [replace(row, segments=(Segment(row.text or "", False),)) for row in rows if not row.messages]
        texts = iter(self._segments.encode_batch(of_text))
        of_messages = [(row.messages, row.tools) for row in rows if row.messages]
        conversations = iter(self._need_renderer().encode_prompts(of_messages) if of_messages else ())
        return [next(conversations if row.messages else texts) for row in rows]

    def encode_split(self, row: Row, max_length: int) -> tuple[list[Encoded], int]:
        """Make several conversations of one that is too long; see `Renderer.encode_split`."""
        return self._need_renderer().encode_split(row.messages, row.tools, max_length)

    def facts(self) -> dict[str, Any]:
        """All that decides the tokens, as JSON-ready values."""
        return {
            "tokenizer": hash_tokenizer(self.tokenizer),
            "rendering": None if self._renderer is None else self._renderer.fingerprint(),
            "segments": self._segments.facts(),
        }

    def _need_renderer(self) -> Renderer:
        if self._renderer is None:
            load_chat_template("auto", self.tokenizer)  # says that there is none, and what to do
        assert self._renderer is not None
        return self._renderer


def _check_learns(encoded: Encoded | RowError) -> Encoded | RowError:
    if isinstance(encoded, RowError) or any(end > max(start, 1) for start, end in encoded.spans):
        return encoded
    return RowError("no supervised token: a single token has nothing to predict")

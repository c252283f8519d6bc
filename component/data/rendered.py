"""What a conversation is on its way to tokens, and the options that decide what it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from component.data.rows import RowError
from component.data.turns import Span


@dataclass(frozen=True)
class RenderOptions:
    """How conversations become text, and what of them is learned.

    Attributes:
        append_stop_token: write the tokenizer's EOS token after an answer that the template ends with no token that the
            tokenizer knows.
        train_on_prompt: learn all tokens, but those of answers of weight 0.
        train_on: learn all answers, or the last one of a conversation; answers of weight 0 never.
        default_system: the system text of conversations that have no system message.
        content_control_tokens: what a control token is that a message's own text spells out: plain text, the control
            token that `apply_chat_template` makes of it, or a reason to reject the row.
    """

    append_stop_token: bool = False
    train_on_prompt: bool = False
    train_on: Literal["all", "last"] = "all"
    default_system: str | None = None
    content_control_tokens: Literal["text", "control", "reject"] = "text"


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: what the template makes of it.
        spans: the supervised characters [start, end), ascending and disjoint.
        aliased: where a message spells out control tokens that are to stay text, what is encoded instead of `text`,
            character for character; see `ControlTokens`.
        notices: what is odd about it, in words that are the same for every row like it.
    """

    text: str
    spans: tuple[Span, ...]
    aliased: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text, its supervised token spans [start, end), notices and the text; unpacks as (ids, spans)."""

    input_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    notices: tuple[str, ...] = ()
    text: str = ""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.input_ids, self.spans))


def to_tokens(rendered: Rendered, ids: Sequence[int], offsets: Sequence[Span]) -> Encoded | RowError:
    """Carry character spans over to tokens; all three sequences are ascending, so one pass does.

    Args:
        rendered: the text and its spans.
        ids: its tokens.
        offsets: the characters [start, end) of each token.

    Returns:
        The tokens, or the error that a span holds none.
    """
    text, spans, token = rendered.text, [], 0
    for start, end in rendered.spans:
        while token < len(ids) and _first_visible(text, offsets[token]) < start:
            token += 1
        first = token
        while token < len(ids) and _first_visible(text, offsets[token]) < end:
            token += 1
        if first == token:
            return RowError("answer without tokens: it shares its only token with the text before it")
        spans.append((first, token))
    return Encoded(tuple(ids), tuple(spans), rendered.notices, text)


def _first_visible(text: str, offset: Span) -> int:
    """Where a token's first visible character is; its first one if all are whitespace."""
    start, end = offset
    while start < end and text[start].isspace():
        start += 1
    return start if start < end else offset[0]

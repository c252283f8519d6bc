"""What a conversation is on its way to tokens, and the options that decide what it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from component.data.batch_encoding import TokenizedText
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
        are_generation_blocks: whether the spans are those of `{% generation %}` blocks, which hold every token that has
            a character of theirs, as the masks of transformers do.
    """

    text: str
    spans: tuple[Span, ...]
    aliased: str | None = None
    notices: tuple[str, ...] = ()
    are_generation_blocks: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text, its supervised token spans [start, end), notices and the text; unpacks as (ids, spans)."""

    input_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    notices: tuple[str, ...] = ()
    text: str = ""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.input_ids, self.spans))


def to_tokens(rendered: Rendered, tokens: TokenizedText) -> Encoded | RowError:
    """Carry character spans over to tokens; a token belongs to the side on which its first visible character lies.

    Args:
        rendered: the text and its spans.
        tokens: of the text, or of what is encoded instead of it.

    Returns:
        The tokens, or the error that a span holds none.
    """
    find = _whole_tokens if rendered.are_generation_blocks else _visible_tokens
    spans = find(tokens, rendered.spans)
    if any(first >= end for first, end in spans):
        return RowError("answer without tokens: it shares its only token with the text before it")
    return Encoded(tokens.input_ids, spans, rendered.notices, rendered.text)


def _visible_tokens(tokens: TokenizedText, spans: tuple[Span, ...]) -> tuple[Span, ...]:
    return tuple((tokens.first_from(start), tokens.first_from(end)) for start, end in spans)


def _whole_tokens(tokens: TokenizedText, spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The tokens with a character of a span; one that two spans share is the first one's."""
    found: list[Span] = []
    for start, end in spans:
        first = max(tokens.containing(start), found[-1][1] if found else 0)
        found.append((first, tokens.containing(end - 1) + 1))
    return tuple(found)

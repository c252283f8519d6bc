"""What becomes of control tokens that a row's own text spells out: plain text, control tokens, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from component.data.control_tokens import ControlTokens
from component.data.probes import Tools
from component.data.rendered import Rendered
from component.data.rows import Message, RowError
from component.data.traced_text import TracedText
from component.data.turns import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTROL_TOKENS_AS_TEXT = "a message spells out a control token; content_control_tokens: text encodes it as plain text"
CONTROL_TOKENS_AS_CONTROLS = "a message spells out a control token; content_control_tokens: control encodes it as such"
CONTROL_TOKENS_IN_PLAIN_TEXT = "a text without a chat template spells out a control token; it is encoded as such"

#: (index of the message, control token) for each place where one is spelled out; no index in tools and names.
SpelledOut = Sequence[tuple[int | None, str]]


class ContentControls:
    """Finds the control tokens that conversations spell out, and treats them.

    Args:
        tokenizer: a fast tokenizer.
        treatment: the option `content_control_tokens`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, treatment: Literal["text", "control", "reject"]) -> None:
        self.tokens = ControlTokens(tokenizer)
        self._treatment = treatment

    def find(
        self,
        text: TracedText,
        messages: Sequence[Message],
        tools: Tools,
        render: Callable[[Sequence[Message], Tools], TracedText],
    ) -> SpelledOut:
        """The control tokens of the conversation's own in `text`.

        Args:
            text: the rendered conversation.
            messages, tools: what was rendered.
            render: renders the same way once more.

        Raises:
            RowError: they cannot be told from those that the template writes.
        """
        found = self.tokens.find_in_content(text)
        if self._treatment != "control" and (found or self.tokens.are_in(tools)):
            without = render(self.tokens.without((*messages,)), self.tokens.without((*tools,)))
            if self.tokens.of_template(text) != self.tokens.of_template(without):
                raise RowError("control token in content: the template mixes it with its own")
        return found

    def treat(
        self, text: TracedText, spans: tuple[Span, ...], spelled_out: SpelledOut, notices: tuple[str, ...] = ()
    ) -> Rendered:
        """What is encoded for a conversation.

        Args:
            text, spans: the conversation and its supervised characters.
            spelled_out: what `find` found in it.
            notices: of the conversation.

        Raises:
            RowError: it spells out a control token, and the treatment is to reject it.
        """
        if not spelled_out:
            return Rendered(text.plain(), spans, notices=notices)
        message, control = spelled_out[0]
        if self._treatment == "reject":
            place = "a tool or a name" if message is None else f"message {message + 1}"
            raise RowError(f"control token in content: {place} spells out {control!r}")
        if self._treatment == "control":
            return Rendered(text.plain(), spans, notices=(*notices, CONTROL_TOKENS_AS_CONTROLS))
        aliased = self.tokens.with_aliases(text)
        return Rendered(text.plain(), spans, aliased, (*notices, CONTROL_TOKENS_AS_TEXT))


class PlainTextControls:
    """Finds the control tokens that texts without a chat template spell out, which are encoded as such.

    Args:
        tokenizer: a fast tokenizer.
        rejects: whether a text that spells one out is rejected.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, rejects: bool = False) -> None:
        self._tokens = ControlTokens(tokenizer)
        self._rejects = rejects
        self._notices = () if tokenizer.split_special_tokens else (CONTROL_TOKENS_IN_PLAIN_TEXT,)

    def check(self, text: str) -> tuple[str, ...]:
        """The notices of a text.

        Raises:
            RowError: it spells out a control token, and such texts are rejected.
        """
        control = self._tokens.find_any(text)
        if control is None:
            return ()
        if self._rejects:
            raise RowError(f"control token in content: the text spells out {control!r}")
        return self._notices

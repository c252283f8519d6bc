"""Where the messages of a conversation lie in its rendered text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from component.data.rows import Message, RowError
from component.data.traced_text import GENERATED, UNOWNED, TracedText, message_of, message_origin

Span = tuple[int, int]


@dataclass(frozen=True)
class Turn:
    """Where one message lies in a rendered conversation.

    Attributes:
        start, end: the characters from its first to its last own one.
        before, after: the template's text that touches it on either side, up to the neighbours' own text.
    """

    start: int
    end: int
    before: str
    after: str


def locate_turn(text: TracedText, index: int, last_words: str = "", ending: str = "") -> Turn:
    """Where message `index` lies in a rendered conversation.

    Args:
        text: the conversation.
        index: of the message.
        last_words: its last own text, where that and the template's `ending` after it are known from a rendering in
            which nothing follows: words that a later header repeats, such as the name of a called tool, stand behind.

    Raises:
        RowError: none of its text is there, or text of another message stands within it.
    """
    origin, own = text.origin, message_origin(index)
    start, end = origin.find(own), origin.rfind(own) + 1
    if start < 0:
        raise RowError(f"answer without text: message {index + 1} leaves none in the rendered conversation")
    if last_words:
        end = _end_of_last_words(text, own, last_words, ending) or end
    if origin[start:end].strip(own + UNOWNED):
        raise RowError(f"answer not provable: the text of message {index + 1} is mixed with that of another message")
    previous_end = len(origin[:start].rstrip(UNOWNED))
    next_start = len(origin) - len(origin[end:].lstrip(UNOWNED))
    return Turn(start, end, text.plain(previous_end, start), text.plain(end, next_start))


def find_last_words(text: TracedText, index: int) -> str:
    """The last piece of own text of message `index`: what stands there without a break."""
    own = message_origin(index)
    end = text.origin.rfind(own) + 1
    return text.plain(len(text.origin[:end].rstrip(own)), end)


def _end_of_last_words(text: TracedText, own: str, last_words: str, ending: str) -> int:
    """Where the last occurrence of a message's last own words before `ending` ends; 0 where there is none."""
    plain, position = text.plain(), len(text)
    while (position := plain.rfind(last_words + ending, 0, position)) >= 0:
        end = position + len(last_words)
        is_own = text.origin[position:end] == own * len(last_words)
        if is_own and not text.origin[end : end + len(ending)].strip(UNOWNED):
            return end
        position += len(last_words + ending) - 1
    return 0


def check_calls_are_shown(text: TracedText, turn: Turn, index: int, message: Message) -> None:
    """Refuse a conversation in which the template leaves out a tool call.

    Raises:
        RowError: the turn does not show the names of the called tools in their order.
    """
    own, shown = message_origin(index), text.plain(turn.start, turn.end)
    position = 0
    for call in message.tool_calls:
        function = call.get("function", call)
        name = function.get("name")
        while isinstance(name, str):
            found = shown.find(name, position)
            if found < 0:
                raise RowError(f"the chat template leaves out a tool call of message {index + 1}: {name}")
            position = found + len(name)
            if set(text.origin[turn.start + found : turn.start + position]) <= {own}:
                break


def generated_spans(text: TracedText) -> list[Span]:
    """The character spans that came from `{% generation %}` blocks; touching blocks are one span."""
    return [match.span() for match in re.finditer(f"[{chr(GENERATED)}-{chr(0x10FFFF)}]+", text.origin)]


def messages_within(text: TracedText, start: int, end: int) -> tuple[int, ...]:
    """The indices of the messages whose text stands in a span; ascending."""
    indices = map(message_of, set(text.origin[start:end]))
    return tuple(sorted(index for index in indices if index is not None))

"""What a chat template leaves out of a conversation without a word, as notices that are counted over all rows."""

from __future__ import annotations

from collections.abc import Sequence

from component.data.rows import Message
from component.data.traced_text import GENERATED, TracedText, message_origin

REASONING_LEFT_OUT = "the chat template leaves out the reasoning before an answer, as most do before earlier ones"
ANSWER_CHANGED = "the chat template changes the text of an answer"


def text_left_out(role: str) -> str:
    """The notice that the template leaves out, or shortens, what a message of this role says."""
    return f"the chat template leaves out text of a {role} message"


def find_left_out(text: TracedText, messages: Sequence[Message]) -> tuple[str, ...]:
    """What of the messages does not stand in `text`, which they were rendered to; one notice a kind.

    White space at the ends of a text is no part of it: many templates trim.
    """
    notices: dict[str, None] = {}
    plain = text.plain()
    for index, message in enumerate(messages):
        if message.role == "assistant":
            thought, answer = _thought_and_answer(message)
            if thought and thought not in plain:
                notices[REASONING_LEFT_OUT] = None
        else:
            answer = message.content.strip()
        # What calls tools has more text of its own than it says.
        is_shown = not message.tool_calls and _is_shown(text.origin, index, answer)
        if not is_shown and answer not in plain:
            notices[ANSWER_CHANGED if message.role == "assistant" else text_left_out(message.role)] = None
    return tuple(notices)


def _is_shown(origins: str, index: int, words: str) -> bool:
    """Whether at least as much of a message's own text is shown as it says."""
    own = message_origin(index)
    num_shown = origins.count(own)
    return num_shown >= len(words) or num_shown + origins.count(chr(ord(own) + GENERATED)) >= len(words)


def _thought_and_answer(message: Message) -> tuple[str, str]:
    """The thought before an answer, in the field of its own or in the text, and the answer."""
    if message.reasoning_content is not None:
        return message.reasoning_content.strip(), message.content.strip()
    if "</think>" not in message.content:
        return "", message.content.strip()
    before, _, answer = message.content.rpartition("</think>")
    return before.rpartition("<think>")[2].strip(), answer.strip()

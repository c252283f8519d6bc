"""How a template wants what messages can say in more than one way, and messages written in that way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from component.data.probes import CALLING, TOOL, Tools
from component.data.rows import Message, RowError
from component.data.traced_text import ROW, TracedText, message_origin
from component.data.traced_values import trace

# These name things in headers; they are not text that anybody writes.
_NAMES = frozenset({"tool_call_id", "name"})
_THOUGHT_KEYS = ("thinking", "reasoning", "thought")


@dataclass(frozen=True)
class MessageStyle:
    """What differs between templates in the messages that they are written for.

    Attributes:
        arguments_as_text: the arguments of a tool call are JSON text, as in OpenAI's format, and not a mapping.
        null_content: an answer that only calls tools has no content, and not an empty one.
        thought_key: the field of a message that holds the thoughts before an answer.
    """

    arguments_as_text: bool = False
    null_content: bool = False
    thought_key: str = "reasoning_content"

    def write(self, message: Message) -> dict[str, Any]:
        """A message as the mapping that the template is written for, without the fields that are absent."""
        written = message.as_template_message()
        if "reasoning_content" in written:
            written[self.thought_key] = written.pop("reasoning_content")
        if message.tool_calls and self.null_content and not message.content:
            written["content"] = None
        if message.tool_calls and self.arguments_as_text:
            written["tool_calls"] = [_with_text_arguments(call) for call in message.tool_calls]
        return written

    def notices(self) -> tuple[str, ...]:
        """What is not as in the rows themselves; a sentence each, to follow the template's name."""
        said = (
            (self.arguments_as_text, "takes the arguments of tool calls as JSON text; they are given to it so"),
            (self.null_content, "takes a call of tools without content only; an empty one is given to it as null"),
            (
                self.thought_key != "reasoning_content",
                f"calls reasoning_content {self.thought_key}; it is given to it so",
            ),
        )
        return tuple(sentence for is_so, sentence in said if is_so)


def trace_message(message: Message, index: int, style: MessageStyle) -> dict[str, Any]:
    """A message as a template takes it, whose texts know that they are message `index`'s; a role is the template's."""
    origin = message_origin(index)
    return {
        key: value if key == "role" else trace(value, ROW if key in _NAMES else origin)
        for key, value in style.write(message).items()
    }


def find_style(source: str, render: Callable[[MessageStyle, Tools], TracedText]) -> MessageStyle:
    """The first style in which a template shows a tool call and its arguments.

    Args:
        source: the template.
        render: renders the probe `CALLING` in a style, with tools; raises RowError where the template refuses it.
    """
    plain = MessageStyle(thought_key=_find_thought_key(source))
    if "tool_calls" not in source:
        return plain
    all_tools: tuple[Tools, ...] = ((), (TOOL,))
    for null_content in (False, True):
        for arguments_as_text in (False, True):
            style = MessageStyle(arguments_as_text, null_content, plain.thought_key)
            if any(_shows_call(style, tools, render) for tools in all_tools):
                return style
    return plain


def _shows_call(style: MessageStyle, tools: Tools, render: Callable[[MessageStyle, Tools], TracedText]) -> bool:
    try:
        text = render(style, tools)
    except RowError:
        return False
    function = CALLING[1].tool_calls[0]["function"]
    return all(value in text.plain() for value in function["arguments"].values())


def _find_thought_key(source: str) -> str:
    if "reasoning_content" in source:
        return "reasoning_content"
    for key in _THOUGHT_KEYS:
        if re.search(rf"\b(message|msg|m)(\.{key}\b|\[['\"]{key}['\"]\]|\.get\(['\"]{key}['\"])", source):
            return key
    return "reasoning_content"


def _with_text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        function = {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {**call, "function": function} if "function" in call else dict(function)

"""OpenAI's chat format: `messages` with role and content, tool calls, tool results and `tools`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from component.data.formats.conversation import build_tool_call, check_conversation
from component.data.formats.fields import (
    check_turn_keys,
    kind_of,
    read_list,
    read_text,
    read_tools,
    read_weight,
    split_columns,
)
from component.data.rows import Message, Row, RowError, Source

_KEYS = ("messages", "tools")
_MESSAGE_KEYS = (
    "role", "content", "reasoning_content", "tool_calls", "function_call", "tool_call_id", "name", "weight",
)  # fmt: skip
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    "user": "user",
    "assistant": "assistant",
    **dict.fromkeys(("tool", "function"), "tool"),
}


class OpenAI:
    """`{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], "tools": [...]}`.

    Content may be a list of text parts, which are joined. Arguments of tool calls may be an object or its JSON text.
    `"weight": 0` shows an answer without learning it.
    """

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has `messages`."""
        return "messages" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a conversation that can be trained on.
        """
        messages, places, notices = read_messages(read_list(record, "messages", "openai", _KEYS))
        columns, misspelt = split_columns(record, _KEYS)
        odd = check_conversation(messages, places)
        tools = read_tools(record.get("tools"))
        return Row(source, messages=tuple(messages), tools=tools, columns=columns, notices=(*misspelt, *notices, *odd))


def read_messages(written: Sequence[Any], noun: str = "message") -> tuple[list[Message], list[str], tuple[str, ...]]:
    """Make messages of a list of them.

    Args:
        written: the list as it was read.
        noun: what one of them is called in reasons, such as "chosen message".

    Returns:
        The messages, without a first system message that has no content; the place of each; notices.

    Raises:
        RowError: one of them is no message.
    """
    messages: list[Message] = []
    places: list[str] = []
    notices: dict[str, None] = {}
    for number, item in enumerate(written, start=1):
        place = f"{noun} {number}"
        message, unread = _read_message(item, place, is_first=number == 1)
        if unread:
            notices |= dict.fromkeys(unread)
        if message is not None:
            messages.append(message)
            places.append(place)
    return messages, places, tuple(notices)


def _read_message(written: Any, place: str, *, is_first: bool) -> tuple[Message | None, tuple[str, ...]]:
    """Make a message, None for a first system message without content; the second value is notices."""
    if not isinstance(written, Mapping):
        raise RowError(f"message is not an object: {place} is {kind_of(written)}")
    role, content = written.get("role"), written.get("content")
    if len(written) == 2 and isinstance(role, str) and role in _ROLES and isinstance(content, str):
        return Message(_ROLES[role], content), ()  # as nearly all are: nothing else to look for
    if "from" in written and "value" in written:
        raise RowError(
            f"missing turn key: role in {place}, which has from and value; "
            "this looks like sharegpt; rename messages to conversations and set data_format: sharegpt"
        )
    unread = check_turn_keys(written, required=("role",), known=_MESSAGE_KEYS, where=place)
    role = _read_role(role, place)
    calls = _read_calls(written, place)
    weight = read_weight(written, place)
    if written.get("weight") is not None and role != "assistant":
        unread = (*unread, f"weight of a {role} turn is not read; only answers are learned")
    if content is None and role == "system" and is_first:
        return None, unread
    if content is None and calls:
        content = ""
    if "content" not in written and content is None:
        raise RowError(f"missing turn key: content in {place}, which has {', '.join(written)}")
    message = Message(
        role,
        read_text(content, place),
        reasoning_content=_read_field(written, "reasoning_content", place),
        tool_calls=calls,
        tool_call_id=_read_field(written, "tool_call_id", place),
        name=_read_field(written, "name", place),
        weight=weight if role == "assistant" else 1,
    )
    return message, unread


def _read_role(name: Any, place: str) -> str:
    """Return the canonical role."""
    if isinstance(name, str) and name in _ROLES:
        return _ROLES[name]
    meant = difflib.get_close_matches(name, _ROLES, n=1) if isinstance(name, str) else []
    hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(_ROLES)}"
    raise RowError(f"unknown role: {name!r} in {place}; {hint}")


def _read_calls(written: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tool calls of a message, its older single `function_call` among them."""
    calls = written.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RowError(f"tool_calls are not a list: {place}")
    if written.get("function_call") is not None:
        calls = [*calls, written["function_call"]]
    return tuple(build_tool_call(call, place) for call in calls)


def _read_field(written: Mapping[str, Any], key: str, place: str) -> str | None:
    """Return an optional text of a message."""
    value = written.get(key)
    return None if value is None else read_text(value, f"{key} of {place}")

"""ShareGPT's format: `conversations`, a list of {from, value} turns, with tool calls and a `tools` column."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from component.data.formats.conversation import build_tool_call, check_conversation, with_system
from component.data.formats.fields import (
    check_turn_keys,
    kind_of,
    parse_json_text,
    read_list,
    read_optional_text,
    read_text,
    read_tools,
    read_weight,
    split_columns,
)
from component.data.rows import Message, Row, RowError, Source

_KEYS = ("conversations", "system", "tools")
_TURN_KEYS = ("from", "value")
_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bard"), "assistant"),
    "function_call": "assistant",
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}


class ShareGPT:
    """`{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}], "tools": "[...]"}`.

    A `function_call` turn becomes an assistant message with tool calls. A tool definition that is not wrapped in
    {"type": "function", "function": ...} is wrapped, since that is the form that chat templates read.
    """

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has `conversations`, and not the two answers of preference data."""
        return "conversations" in record and "chosen" not in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a conversation that can be trained on.
        """
        messages, places, notices = read_turns(read_list(record, "conversations", "sharegpt", _KEYS))
        conversation, places_of = with_system(read_optional_text(record, "system"), messages, places)
        tools = read_bare_tools(record)
        columns, misspelt = split_columns(record, _KEYS)
        odd = check_conversation(conversation, places_of)
        return Row(source, messages=conversation, tools=tools, columns=columns, notices=(*misspelt, *notices, *odd))


def read_turns(written: Sequence[Any], noun: str = "turn") -> tuple[list[Message], list[str], tuple[str, ...]]:
    """Make messages of a list of {from, value} turns.

    Args:
        written: the list as it was read.
        noun: what one of them is called in reasons.

    Returns:
        The messages, the place of each, and notices.

    Raises:
        RowError: one of them is no turn.
    """
    messages: list[Message] = []
    places: list[str] = []
    notices: dict[str, None] = {}
    for number, turn in enumerate(written, start=1):
        places.append(f"{noun} {number}")
        message, unread = _read_turn(turn, places[-1])
        messages.append(message)
        notices |= dict.fromkeys(unread)
    return messages, places, tuple(notices)


def read_bare_tools(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return a record's tool definitions in the form that chat templates read.

    Raises:
        RowError: they are no list of objects.
    """
    return tuple(_wrap_tool(tool) for tool in read_tools(record.get("tools")))


def _read_turn(turn: Any, place: str) -> tuple[Message, tuple[str, ...]]:
    """Make a message of a turn; the second value is notices."""
    if not isinstance(turn, Mapping):
        raise RowError(f"turn is not an object: {place} is {kind_of(turn)}")
    if "role" in turn and "content" in turn:
        raise RowError(
            f"missing turn key: from in {place}, which has role and content; "
            "this looks like openai; rename conversations to messages and set data_format: openai"
        )
    unread = check_turn_keys(turn, required=_TURN_KEYS, known=(*_TURN_KEYS, "weight"), where=place)
    name = turn["from"]
    if not isinstance(name, str) or name not in _ROLES:
        meant = difflib.get_close_matches(name, _ROLES, n=1) if isinstance(name, str) else []
        hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(_ROLES)}"
        raise RowError(f"unknown role: {name!r} in {place}; {hint}")
    text = read_text(turn["value"], f"value in {place}")
    weight = read_weight(turn, place)
    if name != "function_call":
        return Message(_ROLES[name], text, weight=weight), unread
    calls = parse_json_text(text, "function_call", place)
    calls = calls if isinstance(calls, list) else [calls]
    tool_calls = tuple(build_tool_call(call, place) for call in calls)
    return Message("assistant", "", tool_calls=tool_calls, weight=weight), unread


def _wrap_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool definition in the form that chat templates read."""
    return {"type": "function", "function": tool} if "function" not in tool and "name" in tool else tool

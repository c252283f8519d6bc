"""What makes a list of messages a conversation that can be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from component.data.formats.fields import kind_of, parse_json_text
from component.data.rows import Message, RowError

#: Which roles may follow a role; None is the beginning. A tool result also needs a call before it.
_FOLLOWERS: dict[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}

UNANSWERED = "the last turn has no answer; nothing is learned from it"
EMPTY_PROMPT = "a user turn is empty"


def check_conversation(messages: Sequence[Message], places: Sequence[str]) -> tuple[str, ...]:
    """Check the order of roles and that every answer says something.

    Args:
        messages: the conversation, the system message first where there is one.
        places: where each message stands in the record ("turn 2"), for the reason.

    Returns:
        Notices: what is odd but can be trained on.

    Raises:
        RowError: two systems, wrong role order, an empty answer, no answer at all.
    """
    _check_messages(messages, places)
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        raise RowError("no answer at all")
    if not any(answer.weight for answer in answers):
        raise RowError("no answer to learn from: all have weight 0")
    unanswered = (UNANSWERED,) if messages[-1].role != "assistant" else ()
    return (*unanswered, *_empty_prompts(messages))


def check_prompt(messages: Sequence[Message], places: Sequence[str]) -> tuple[str, ...]:
    """Check that messages are a prompt, which an answer may follow.

    Args:
        messages: system, user, assistant and tool messages, the last of them for the assistant to answer.
        places: where each stands in the record, for the reason.

    Returns:
        Notices: what is odd but can be used.

    Raises:
        RowError: two systems, wrong role order, an empty answer, or nothing to answer at the end.
    """
    _check_messages(messages, places)
    if not messages or messages[-1].role not in ("user", "tool"):
        last = f"{messages[-1].role} in {places[-1]}" if messages else "nothing"
        raise RowError(f"wrong role order: the prompt ends with {last}")
    return _empty_prompts(messages)


def check_answer(prompt: Sequence[Message], answer: Sequence[Message], places: Sequence[str]) -> None:
    """Check that an answer of one or more messages follows its prompt and ends with the assistant.

    Args:
        prompt: what `check_prompt` has checked.
        answer: messages, the first by the assistant.
        places: where each of them stands in the record, for the reason.

    Raises:
        RowError: it is empty, says nothing, or its roles are in a wrong order.
    """
    assert answer
    _check_messages((*prompt, *answer), (*("prompt" for _ in prompt), *places))
    if answer[-1].role != "assistant":
        raise RowError(f"wrong role order: the answer ends with {answer[-1].role} in {places[-1]}")


def _check_messages(messages: Sequence[Message], places: Sequence[str]) -> None:
    """Check the order of roles and that no answer is empty."""
    if sum(message.role == "system" for message in messages) > 1:
        raise RowError("two system messages")
    previous: Message | None = None
    for message, place in zip(messages, places, strict=True):
        _check_order(previous, message, place)
        if message.role == "assistant" and not message.content.strip() and not message.tool_calls:
            raise RowError(f"empty answer: {place}")
        previous = message


def _empty_prompts(messages: Sequence[Message]) -> tuple[str, ...]:
    is_empty = any(message.role == "user" and not message.content.strip() for message in messages)
    return (EMPTY_PROMPT,) if is_empty else ()


def _check_order(previous: Message | None, message: Message, place: str) -> None:
    """Check that a message may stand where it stands."""
    followers = _FOLLOWERS[previous.role if previous else None]
    if message.role in followers:
        if message.role == "tool" and previous and previous.role == "assistant" and not previous.tool_calls:
            raise RowError(f"wrong role order: a tool result without a call in {place}")
        return
    if previous is None:
        raise RowError(f"wrong role order: the conversation begins with {message.role} in {place}")
    raise RowError(f"wrong role order: {message.role} after {previous.role} in {place}")


def with_system(
    system: str | None, messages: Sequence[Message], places: Sequence[str]
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Put a record's system text, where it has one, before its messages.

    Returns:
        The messages and the place of each.
    """
    if system is None:
        return tuple(messages), tuple(places)
    return (Message("system", system), *messages), ("system", *places)


def build_tool_call(call: Any, place: str) -> dict[str, Any]:
    """Return a tool call in the form that chat templates read: type, function name, arguments as an object.

    Args:
        call: {"name", "arguments"}, or the OpenAI form that has these under "function", with arguments as an object
            or as its JSON text.
        place: the turn, for the reason.

    Raises:
        RowError: it is not a tool call.
    """
    if not isinstance(call, Mapping):
        raise RowError(f"not a tool call: {kind_of(call)} in {place}")
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"not a tool call: no function name in {place}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = parse_json_text(arguments, "tool call arguments", place) if arguments.strip() else {}
    if not isinstance(arguments, Mapping):
        raise RowError(f"tool call arguments are not an object: {place}")
    built = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **built} if isinstance(call.get("id"), str) else built

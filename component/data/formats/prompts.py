"""Prompts and answers that may be plain text or lists of messages: what prompt_completion, preference and kto share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from component.data.formats.conversation import check_answer, check_prompt
from component.data.formats.fields import check_list, kind_of, read_tools, split_columns
from component.data.formats.openai import read_messages
from component.data.json_records import RecordDecoder
from component.data.rows import Message, Row, RowError, Segment, Source

TextOrMessages = str | tuple[Message, ...]


def read_text_or_messages(value: Any, key: str) -> tuple[TextOrMessages, tuple[str, ...]]:
    """Read a column that holds text or a list of messages.

    Args:
        value: what the column holds.
        key: its name, for reasons.

    Returns:
        The text as it was written or the messages, and notices.

    Raises:
        RowError: it is null, an empty list, or something else.
    """
    if value is None:
        raise RowError(f"null {key}")
    turns = messages_of(value)
    if isinstance(turns, str):
        return turns, ()
    if not isinstance(turns, list):
        raise RowError(f"{key} is not text or a list of messages: {kind_of(turns)}")
    messages, _, notices = read_messages(check_list(turns, key), f"{key} message")
    if isinstance(value, str):
        notices = (f"{key} is the JSON text of messages, and is read as messages", *notices)
    return tuple(messages), notices


def messages_of(value: Any) -> Any:
    """A value as it is, or the messages of which it is the JSON text, as tables without nested columns hold them.

    Raises:
        RowError: they are messages with half a surrogate pair or a key twice.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        written, fault = RecordDecoder().decode_nested(value)
    except ValueError:
        return value
    if not written or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in written):
        return value
    if fault is not None:
        raise RowError(f"{fault}, in messages that are JSON text")
    return written


def as_messages(value: TextOrMessages, role: str) -> tuple[Message, ...]:
    """Messages as they are, and text as one message of that role."""
    return (Message(role, value),) if isinstance(value, str) else value


def places_of(messages: Sequence[Message], key: str) -> tuple[str, ...]:
    """The place of each message of a column, for reasons."""
    return tuple(f"{key} message {number}" for number in range(1, len(messages) + 1))


def as_context(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages of a prompt, whose answers are not trained on."""
    return tuple(replace(message, weight=0) if message.role == "assistant" else message for message in messages)


def build_completion_row(record: Mapping[str, Any], source: Source, known: Sequence[str] = ()) -> Row:
    """Make a row of `prompt` and `completion`: of two texts segments, of messages a conversation.

    Args:
        record: with both keys.
        source: its place.
        known: keys that the caller reads.

    Raises:
        RowError: one of them is missing something, or the completion does not answer the prompt.
    """
    prompt, of_prompt = read_text_or_messages(record["prompt"], "prompt")
    completion, of_completion = read_text_or_messages(record["completion"], "completion")
    is_text = isinstance(prompt, str) and isinstance(completion, str)
    keys = ("prompt", "completion", *known)
    columns, misspelt = split_columns(record, keys if is_text else (*keys, "tools"))
    notices = (*misspelt, *dict.fromkeys((*of_prompt, *of_completion)))
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise RowError("empty answer: completion")
        pieces = (Segment(prompt, False), Segment(completion, True))
        return Row(source, segments=pieces, ends_with_eos=True, columns=columns, notices=notices)
    context = as_context(as_messages(prompt, "user"))
    answer = as_messages(completion, "assistant")
    odd = check_prompt(context, places_of(context, "prompt"))
    check_answer(context, answer, places_of(answer, "completion"))
    return Row(
        source,
        messages=(*context, *answer),
        tools=read_tools(record.get("tools")),
        columns=columns,
        notices=(*notices, *odd),
    )

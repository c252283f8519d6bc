"""Alpaca's format: instruction, input, output, with an optional `system` and `history` of earlier turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.conversation import check_conversation, with_system
from component.data.formats.fields import (
    kind_of,
    parse_json_text,
    read_optional_text,
    read_text,
    require_key,
    split_columns,
)
from component.data.rows import Message, Row, RowError, Source

_KEYS = ("instruction", "input", "output", "system", "history")


class Alpaca:
    """`{"instruction": "...", "input": "...", "output": "...", "history": [["question", "answer"]]}`.

    The prompt is the instruction, followed by a line break and the input where that is not empty: LLaMA-Factory's
    convention. Stanford's own "Below is an instruction" text is a template for base models, not part of the data.
    """

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has an `instruction` and an `output`."""
        return "instruction" in record and "output" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a conversation that can be trained on.
        """
        for key in ("instruction", "output"):
            require_key(record, key, "alpaca", _KEYS)
        prompt, places = read_prompt(record)
        answer = Message("assistant", read_text(record["output"], "output"))
        conversation, places_of = with_system(
            read_optional_text(record, "system"), [*prompt, answer], [*places, "output"]
        )
        columns, misspelt = split_columns(record, _KEYS)
        odd = check_conversation(conversation, places_of)
        return Row(source, messages=conversation, columns=columns, notices=(*misspelt, *odd))


def read_prompt(record: Mapping[str, Any]) -> tuple[list[Message], list[str]]:
    """Return the messages of `history`, `instruction` and `input`, and the place of each.

    Raises:
        RowError: one of them is no text.
    """
    messages, places = _read_history(record.get("history"))
    question = read_text(record["instruction"], "instruction")
    context = read_optional_text(record, "input")
    prompt = question if context is None else f"{question}\n{context}"
    return [*messages, Message("user", prompt)], [*places, "instruction"]


def _read_history(history: Any) -> tuple[list[Message], list[str]]:
    """Return the earlier turns and the place of each."""
    messages: list[Message] = []
    places: list[str] = []
    if history is None or history == "":
        return messages, places
    if isinstance(history, str) and history.lstrip().startswith("["):
        history = parse_json_text(history, "history")
    if not isinstance(history, list):
        raise RowError(f"history is not a list: {kind_of(history)}")
    for number, pair in enumerate(history, start=1):
        place = f"history turn {number}"
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"history turn is not a [question, answer] pair: {place}")
        messages.append(Message("user", read_text(pair[0], place)))
        messages.append(Message("assistant", read_text(pair[1], place)))
        places += [place, place]
    return messages, places

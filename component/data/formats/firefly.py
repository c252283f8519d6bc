"""Firefly's own format: `conversation`, a list of {human, assistant} turns, and an optional `system`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.conversation import check_conversation, with_system
from component.data.formats.fields import (
    check_turn_keys,
    kind_of,
    read_list,
    read_optional_text,
    read_text,
    split_columns,
)
from component.data.rows import Message, Row, RowError, Source

_KEYS = ("conversation", "system")
_TURN_KEYS = ("human", "assistant")


class Firefly:
    """`{"conversation": [{"human": "...", "assistant": "..."}], "system": "..."}`; content is kept as written."""

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `conversation`."""
        return "conversation" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a conversation that can be trained on.
        """
        messages: list[Message] = []
        places: list[str] = []
        notices: dict[str, None] = {}
        for number, turn in enumerate(read_list(record, "conversation", "firefly", _KEYS), start=1):
            place = f"turn {number}"
            if not isinstance(turn, Mapping):
                raise RowError(f"turn is not an object: {place} is {kind_of(turn)}")
            notices |= dict.fromkeys(check_turn_keys(turn, required=_TURN_KEYS, known=_TURN_KEYS, where=place))
            messages.append(Message("user", read_text(turn["human"], f"human in {place}")))
            messages.append(Message("assistant", read_text(turn["assistant"], f"assistant in {place}")))
            places += [place, place]
        system = read_optional_text(record, "system")
        conversation, places_of = with_system(system, messages, places)
        columns, misspelt = split_columns(record, _KEYS)
        odd = check_conversation(conversation, places_of)
        return Row(source, messages=conversation, columns=columns, notices=(*misspelt, *notices, *odd))

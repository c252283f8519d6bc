"""Question and answer: `question`, `answer`, with an optional `system`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.conversation import check_conversation, with_system
from component.data.formats.fields import read_optional_text, read_text, require_key, split_columns
from component.data.rows import Message, Row, Source

_KEYS = ("question", "answer", "system")


class QA:
    """`{"question": "...", "answer": "..."}`: a conversation of one turn."""

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `question` and an `answer`."""
        return "question" in record and "answer" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a question with its answer.
        """
        for key in ("question", "answer"):
            require_key(record, key, "qa", _KEYS)
        question = Message("user", read_text(record["question"], "question"))
        answer = Message("assistant", read_text(record["answer"], "answer"))
        system = read_optional_text(record, "system")
        conversation, places = with_system(system, (question, answer), ("question", "answer"))
        columns, misspelt = split_columns(record, _KEYS)
        odd = check_conversation(conversation, places)
        return Row(source, messages=conversation, columns=columns, notices=(*misspelt, *odd))

"""Answers with a verdict: prompt, completion and `label`, or `messages` and `label` (https://arxiv.org/abs/2402.01306)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from component.data.formats.conversation import check_answer, check_prompt
from component.data.formats.fields import is_absent, kind_of, read_list, read_tools, require_key, split_columns
from component.data.formats.openai import read_messages
from component.data.formats.prompts import as_context, build_completion_row
from component.data.rows import Row, RowError, Source

_KEYS = ("prompt", "completion", "messages", "label", "tools")
_LABELS = {"true": True, "false": False}


class KTO:
    """`{"prompt": "...", "completion": "...", "label": true}`, or `messages` whose last answer the label is about."""

    row_kind = "labelled"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `label` beside a prompt and completion, or beside messages."""
        return "label" in record and ("messages" in record or ("prompt" in record and "completion" in record))

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: there is no answer in it, or no verdict on it.
        """
        by_messages = "messages" in record and "completion" not in record
        by_messages |= is_absent(record, "completion") and not is_absent(record, "messages")
        for key in ("messages", "label") if by_messages else ("prompt", "completion", "label"):
            require_key(record, key, "kto", _KEYS)
        label = _read_label(record["label"])
        if not by_messages:
            return replace(build_completion_row(record, source, ("label",)), label=label)
        columns, notices = split_columns(record, ("messages", "label", "tools"))
        messages, places, unread = read_messages(read_list(record, "messages", "kto", _KEYS))
        start = len(messages)
        while start > 0 and messages[start - 1].role != "user":
            start -= 1
        prompt, answer = as_context(messages[:start]), messages[start:]
        if not answer:
            raise RowError("no answer at all: the last message is the user's")
        odd = check_prompt(prompt, places[:start])
        check_answer(prompt, answer, places[start:])
        return Row(
            source,
            messages=(*prompt, *answer),
            label=label,
            tools=read_tools(record.get("tools")),
            columns=columns,
            notices=(*notices, *unread, *odd),
        )


def _read_label(label: Any) -> bool:
    """The verdict; a table without types holds it as text."""
    if isinstance(label, bool):
        return label
    if isinstance(label, str) and label.lower() in _LABELS:
        return _LABELS[label.lower()]
    value = repr(label) if isinstance(label, str | int | float) else kind_of(label)
    raise RowError(f"label is not true or false: {value}")

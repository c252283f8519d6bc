"""Prompts without answers: `prompt` or `messages`; every further column is kept for reward functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.conversation import EMPTY_PROMPT, check_prompt
from component.data.formats.fields import is_absent, read_tools, require_key
from component.data.formats.prompts import places_of, read_text_or_messages
from component.data.rows import Row, RowError, Source

_KEYS = ("prompt", "messages", "tools")


class PromptOnly:
    """`{"prompt": "What is 2 + 2?", "solution": "4"}`, the prompt as text or messages; `solution` is a reward column.

    A prompt as text is used as it is, without a chat template.
    """

    row_kind = "prompt"
    #: Reward columns may have any name, so that a `columns` mapping may lead to any.
    keys: tuple[str, ...] = ()

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `prompt` or `messages`."""
        return "prompt" in record or "messages" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: there is no prompt in it, or it is answered already.
        """
        key = "messages" if "messages" in record and is_absent(record, "prompt") else "prompt"
        require_key(record, key, "prompt_only", _KEYS)
        prompt, notices = read_text_or_messages(record[key], key)
        of_other_rows = [name for name in ("prompt", "messages") if is_absent(record, name)]
        read = (key, "tools", *of_other_rows)
        columns = {name: value for name, value in record.items() if name not in read}
        if isinstance(prompt, str):
            if not prompt.strip():
                raise RowError("empty prompt")
            return Row(source, text=prompt, columns=columns, notices=notices)
        odd = check_prompt(prompt, places_of(prompt, key))
        if EMPTY_PROMPT in odd and not prompt[-1].content.strip():
            raise RowError("empty prompt")
        tools = read_tools(record.get("tools"))
        return Row(source, messages=prompt, tools=tools, columns=columns, notices=(*notices, *odd))

"""TRL's prompt and completion: two texts without chat roles, or two lists of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.fields import require_key
from component.data.formats.prompts import build_completion_row
from component.data.rows import Row, Source

_KEYS = ("prompt", "completion", "tools")


class PromptCompletion:
    """`{"prompt": "The sky is", "completion": " blue."}`, or messages in both; only the completion is trained on.

    Two texts are joined as they are, without a chat template, and the EOS token follows the completion. Messages are
    rendered with the chat template.
    """

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `prompt` and a `completion`."""
        return "prompt" in record and "completion" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a prompt with its completion.
        """
        for key in ("prompt", "completion"):
            require_key(record, key, "prompt_completion", _KEYS)
        return build_completion_row(record, source)

"""Plain text: `text`, one document a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.fields import kind_of, require_key, split_columns
from component.data.rows import Row, RowError, Source

_KEYS = ("text",)


class Text:
    """`{"text": "..."}`; a .txt or .md file is one such record."""

    row_kind = "text"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has a `text`."""
        return "text" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: there is no text in it.
        """
        require_key(record, "text", "text", _KEYS)
        text = record["text"]
        if text is None:
            raise RowError("null text")
        if not isinstance(text, str):
            raise RowError(f"text is not a string: {kind_of(text)}")
        if not text.strip():
            raise RowError("empty text")
        columns, notices = split_columns(record, _KEYS)
        return Row(source, text=text, columns=columns, notices=notices)

"""Prompts, for a model to answer, to token ids and the columns that rewards read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from typing import Any

from component.data.encoders.decoding import decode_exactly
from component.data.encoders.whole_rows import WholeRowEncoder
from component.data.rendered import Encoded
from component.data.rows import EncodedRow, Prepared, Row, RowError
from component.data.truncation import LengthLimit, cut_prompt

#: The column in which the prompt itself is kept, for rewards: no other can have its name.
PROMPT_COLUMN = "prompt"


class PromptEncoder:
    """Encodes a conversation up to where the answer begins, or a plain text as the tokenizer normally does.

    Args:
        encoder: of whole rows.
        limit: on the length of a prompt.
        keep_text: see `RowEncoder`.
    """

    row_kind = "prompt"

    def __init__(self, encoder: WholeRowEncoder, limit: LengthLimit, *, keep_text: bool = False) -> None:
        self.keep_text = keep_text
        self._encoder = encoder
        self._limit = limit

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode rows with `messages` or `text`; see `RowEncoder`.

        Raises:
            DataError: a row is over the length limit, and `truncation` is error.
            UserError: a row has messages, and there is no template.
        """
        encoded = self._encoder.encode_prompts(rows)
        return [self._fit_or_error(row, item) for row, item in zip(rows, encoded, strict=True)]

    def facts(self) -> dict[str, Any]:
        """See `RowEncoder`."""
        return {"row_kind": self.row_kind, **self._encoder.facts(), **self._limit.facts()}

    def _fit_or_error(self, row: Row, encoded: Encoded | RowError) -> EncodedRow | RowError:
        if isinstance(encoded, RowError):
            return encoded
        if not encoded.input_ids:
            return RowError("empty prompt: no token is left of it")
        try:
            text = encoded.text if self.keep_text else None
            columns = json_columns({**row.columns, PROMPT_COLUMN: _turns(row)})
            prompt = Prepared(encoded.input_ids, (), row.source, text, columns=columns)
            if prompt.length <= self._limit.num_tokens:
                return EncodedRow((prompt,), notices=encoded.notices)
            (cut,) = cut_prompt(prompt, self._limit).samples
        except RowError as error:
            return error
        if self.keep_text:
            cut = replace(cut, text=decode_exactly(self._encoder.tokenizer, cut.input_ids))
        return EncodedRow((cut,), num_tokens_cut=prompt.length - cut.length, notices=encoded.notices)


def _turns(row: Row) -> str | list[dict[str, Any]]:
    """The prompt as its file has it: text, or messages."""
    return row.text if row.text is not None else [message.as_template_message() for message in row.messages]


def json_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a record as JSON-ready values; a date or time of a table becomes its ISO text.

    Raises:
        RowError: JSON has no word for a value.
    """
    ready = {}
    for name, value in columns.items():
        try:
            ready[name] = json.loads(json.dumps(value, default=_iso_text, allow_nan=False))
        except (TypeError, ValueError):
            raise RowError(f"column is not JSON: {name} holds {_describe(value)}") from None
    return ready


def _iso_text(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError


def _describe(value: Any) -> str:
    return repr(value) if isinstance(value, float) else f"a {type(value).__name__}"

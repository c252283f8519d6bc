"""What a row encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from component.data.rows import EncodedRow, Row, RowError


class RowEncoder(Protocol):
    """Makes samples of rows of one kind, each row on its own: the same row always becomes the same samples.

    Attributes:
        row_kind: the kind of rows that it encodes, as formats name it.
        keep_text: whether samples carry the text that their ids encode.
    """

    row_kind: str
    keep_text: bool

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        """Encode many rows at once; several threads may do so at the same time.

        Returns:
            For each row, in order, its samples, or the error that says why it cannot be used.

        Raises:
            DataError: a row is over the length limit, and `truncation` is error.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """All that decides the tokens of a row beside the row itself, as JSON-ready values."""
        ...

"""Pieces of text with a supervised flag, for those who write every token themselves: `segments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from component.data.formats.fields import check_turn_keys, kind_of, read_list, split_columns
from component.data.rows import Row, RowError, Segment, Source

_KEYS = ("segments",)
_PIECE_KEYS = ("text", "supervised")


class Segments:
    """`{"segments": [{"text": "Q: 1+1?\\nA:", "supervised": false}, {"text": " 2</s>", "supervised": true}]}`.

    The pieces are joined as they are and encoded as one text, without a chat template. Control tokens written in
    them are control tokens; a stop token is trained on where the text writes one.
    """

    row_kind = "messages"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has `segments`."""
        return "segments" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record is not a list of pieces, or nothing in it is supervised.
        """
        pieces: list[Segment] = []
        notices: dict[str, None] = {}
        for number, written in enumerate(read_list(record, "segments", "segments", _KEYS), start=1):
            place = f"segment {number}"
            if not isinstance(written, Mapping):
                raise RowError(f"segment is not an object: {place} is {kind_of(written)}")
            notices |= dict.fromkeys(check_turn_keys(written, required=_PIECE_KEYS, known=_PIECE_KEYS, where=place))
            pieces.append(_read_piece(written, place))
        if not any(piece.supervised for piece in pieces):
            raise RowError("no answer at all: no segment is supervised")
        if not any(piece.supervised and piece.text.strip() for piece in pieces):
            raise RowError("empty answer: the supervised segments hold no text")
        columns, misspelt = split_columns(record, _KEYS)
        return Row(source, segments=tuple(pieces), columns=columns, notices=(*misspelt, *notices))


def _read_piece(written: Mapping[str, Any], place: str) -> Segment:
    text, supervised = written["text"], written["supervised"]
    if text is None:
        raise RowError(f"null content: text in {place}")
    if not isinstance(text, str):
        raise RowError(f"content is not text: text in {place} is {kind_of(text)}")
    if not isinstance(supervised, bool):
        raise RowError(f"supervised is not true or false: {kind_of(supervised)} in {place}")
    return Segment(text, supervised)

"""Cutting samples to a length: which tokens stay and which of them are learned."""

from __future__ import annotations

import pytest

from component.data.rows import Prepared, RowError, Source
from component.data.truncation import keep_end, keep_start, loses_stop_token, split_document

SOURCE = Source("f", 1)
#: Two answers, at 3-5 and 8-9, in ten tokens.
SAMPLE = Prepared(tuple(range(100, 110)), ((3, 6), (8, 10)), SOURCE)


def test_the_start_is_kept() -> None:
    cut = keep_start(SAMPLE, 9)
    assert (cut.input_ids, cut.spans) == (tuple(range(100, 109)), ((3, 6), (8, 9)))
    assert loses_stop_token(SAMPLE, 9)
    assert not loses_stop_token(SAMPLE, 7)
    with pytest.raises(RowError, match="^no supervised token left: the prompt fills max_seq_length 3, the row has 10"):
        keep_start(SAMPLE, 3)


def test_the_end_is_kept_with_its_stop_token() -> None:
    for length, spans in {8: ((1, 4), (6, 8)), 6: ((0, 2), (4, 6)), 4: ((2, 4),), 2: ((0, 2),)}.items():
        cut = keep_end(SAMPLE, length)
        assert (cut.input_ids, cut.spans) == (SAMPLE.input_ids[-length:], spans)
        assert cut.labels()[-1] == 109
    unanswered = Prepared(tuple(range(10)), ((1, 3),), SOURCE)
    with pytest.raises(RowError, match="^no supervised token left: the last question fills max_seq_length 7, the row"):
        keep_end(unanswered, 7)


def test_a_document_is_split_without_losing_a_token() -> None:
    pieces = split_document(range(10), 4, SOURCE)
    assert [piece.input_ids for piece in pieces] == [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9)]
    assert [label for piece in pieces for label in piece.labels() if label != -100] == list(range(1, 10))

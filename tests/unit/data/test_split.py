"""Which rows are held out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from component.config.errors import DataError
from component.data.split import split_rows


def split(num_rows: int, eval_split: float, seed: int) -> list[list[int]]:
    return [rows.tolist() for rows in split_rows(num_rows, eval_split, seed)]


@given(num_rows=st.integers(2, 300), share=st.floats(1e-6, 1, exclude_max=True), seed=st.integers(0, 5))
def test_every_row_is_on_one_side_and_both_have_rows(num_rows: int, share: float, seed: int) -> None:
    train, evaluation = split(num_rows, share, seed)
    assert sorted(train + evaluation) == list(range(num_rows))
    assert len(evaluation) == min(max(round(num_rows * share), 1), num_rows - 1)
    assert train == sorted(train) and evaluation == sorted(evaluation)


def test_it_depends_on_the_seed_alone() -> None:
    assert split(20, 5, 42)[1] == [4, 8, 15, 17, 18]
    assert split(20, 5, 43)[1] != split(20, 5, 42)[1]
    assert split(20, 0.25, 42) == split(20, 5, 42)


@pytest.mark.parametrize(
    ("num_rows", "eval_split", "message"),
    [
        (1, 0.5, "eval_split: cannot split 1 usable row; add rows or remove eval_split"),
        (10, 10, "eval_split: 10 of 10 usable rows leaves none to train on; use a smaller number"),
        (10, 2.5, "eval_split: 2.5 is not a whole number of rows; use one, or a share below 1"),
    ],
)
def test_impossible_splits(num_rows: int, eval_split: float, message: str) -> None:
    with pytest.raises(DataError) as caught:
        split_rows(num_rows, eval_split, 0)
    assert str(caught.value) == message

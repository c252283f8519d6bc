"""Which training rows are held out for evaluation."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from component.config.errors import DataError


def split_rows(num_rows: int, eval_split: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the rows that are held out: a pure function of the arguments, the same on every machine and version.

    Args:
        num_rows: usable rows.
        eval_split: share below 1, or number of rows.
        seed: decides which.

    Returns:
        Indices of the training rows and of the evaluation rows, both ascending and neither empty.

    Raises:
        DataError: no training row would be left, or a number of rows is not whole.
    """
    if eval_split >= 1 and eval_split != int(eval_split):
        raise DataError(f"eval_split: {eval_split} is not a whole number of rows; use one, or a share below 1")
    if num_rows < 2:
        raise DataError(f"eval_split: cannot split {num_rows} usable row; add rows or remove eval_split")
    if eval_split >= num_rows:
        raise DataError(
            f"eval_split: {int(eval_split):,} of {num_rows:,} usable rows leaves none to train on; use a smaller number"
        )
    wanted = int(eval_split) if eval_split >= 1 else round(num_rows * eval_split)
    num_eval = min(max(wanted, 1), num_rows - 1)
    ranked = rank_rows(num_rows, f"eval_split:{seed}")
    return np.sort(ranked[num_eval:]), np.sort(ranked[:num_eval])


def rank_rows(num_rows: int, salt: str) -> NDArray[np.int64]:
    """The rows in an order that looks random and depends on the salt alone.

    Args:
        salt: what the order is for, and its seed.
    """
    hashes = (int.from_bytes(hashlib.sha256(f"{salt}:{row}".encode()).digest()[:8]) for row in range(num_rows))
    return np.argsort(np.fromiter(hashes, dtype=np.uint64, count=num_rows), kind="stable")

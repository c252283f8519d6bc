"""Which rows of several sources are trained on, and in which order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence


def mix_rows(sizes: Sequence[int], weights: Sequence[float], seed: int) -> list[tuple[int, int]]:
    """Choose rows in proportion to weights and interleave the sources: a pure function of the arguments.

    No row is taken twice, so that the source that is smallest for its weight is taken whole and decides how many rows
    there are. At every place the order keeps each source within one row of its share.

    Args:
        sizes: usable rows of each source, above 0.
        weights: above 0; only their ratios count.
        seed: decides which rows of a source that is not taken whole.

    Returns:
        (source, row) of each row; the rows of one source ascend.
    """
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    # A whole number that division left just below itself is still that number.
    length = min(size / share for size, share in zip(sizes, shares, strict=True)) + 1e-9
    wanted = [min(size, max(1, math.floor(length * share + 1e-9))) for size, share in zip(sizes, shares, strict=True)]
    chosen = [
        _choose(size, count, f"mixture:{seed}:{source}")
        for source, (size, count) in enumerate(zip(sizes, wanted, strict=True))
    ]
    places = [
        ((position + 0.5) / count, source, row)
        for source, (rows, count) in enumerate(zip(chosen, wanted, strict=True))
        for position, row in enumerate(rows)
    ]
    return [(source, row) for _, source, row in sorted(places)]


def _choose(size: int, count: int, salt: str) -> list[int]:
    """`count` of `size` rows, ascending."""
    if count == size:
        return list(range(size))
    ranked = sorted(range(size), key=lambda row: hashlib.sha256(f"{salt}:{row}".encode()).digest())
    return sorted(ranked[:count])

"""Which rows of several sources are trained on, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from component.data.split import rank_rows


def mix_rows(sizes: Sequence[int], weights: Sequence[float], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose rows in proportion to weights and interleave the sources: a pure function of the arguments.

    No row is taken twice, so that the source that is smallest for its weight is taken whole and decides how many rows
    there are. At every place the order keeps each source within one row of its share.

    Args:
        sizes: usable rows of each source, above 0.
        weights: above 0; only their ratios count.
        seed: decides which rows of a source that is not taken whole.

    Returns:
        The source of each row, and its number in that source; the numbers of one source ascend.
    """
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    # A whole number that division left just below itself is still that number.
    length = min(size / share for size, share in zip(sizes, shares, strict=True)) + 1e-9
    wanted = [min(size, max(1, math.floor(length * share + 1e-9))) for size, share in zip(sizes, shares, strict=True)]
    chosen = [
        np.arange(size) if count == size else np.sort(rank_rows(size, f"mixture:{seed}:{source}")[:count])
        for source, (size, count) in enumerate(zip(sizes, wanted, strict=True))
    ]
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in wanted])
    sources = np.repeat(np.arange(len(wanted)), wanted)
    order = np.lexsort((sources, places))
    return sources[order], np.concatenate(chosen)[order]

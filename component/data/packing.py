"""Packing: which samples share a row, so that rows are full of real tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Put samples into packs of at most `capacity` tokens: first-fit decreasing.

    The longest sample first, of equal ones that of the lowest index; each goes into the first pack that has room. The
    result depends on the arguments alone, holds every index exactly once and cuts nothing.

    Args:
        lengths: tokens of each sample, from 1 to `capacity`.
        capacity: tokens that a pack holds.

    Returns:
        Packs of indices into `lengths`, longest sample first.

    Raises:
        ValueError: a length is out of range.

    Example:
        pack([3, 5, 2, 5], capacity=8) == [[1, 0], [3, 2]]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if not len(sizes):
        return []
    if sizes.min() < 1 or sizes.max() > capacity:
        raise ValueError(f"lengths from {sizes.min()} to {sizes.max()} do not fit packs of 1 to {capacity} tokens")
    order = np.argsort(-sizes, kind="stable")
    # Samples of one length are placed at once: the first pack with room takes as many as it holds, then the next one.
    # That makes as many passes over the packs as there are distinct lengths, at most `capacity`, each in numpy.
    distinct, counts = np.unique(sizes, return_counts=True)
    free = np.full(len(sizes), capacity, dtype=np.int64)  # of each pack, the unopened ones included
    num_packs = 0
    pack_of = []
    for length, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        with_room = np.flatnonzero(free[:num_packs] >= length)
        num_new = -(-count // (capacity // length))  # would do if no open pack had room
        candidates = np.concatenate((with_room, np.arange(num_packs, num_packs + num_new)))
        room = free[candidates] // length
        taken = np.minimum(room, np.maximum(count - (np.cumsum(room) - room), 0))
        free[candidates] -= taken * length
        pack_of.append(np.repeat(candidates, taken))
        num_packs = max(num_packs, int(pack_of[-1][-1]) + 1)
    packs = np.concatenate(pack_of)
    by_pack = np.argsort(packs, kind="stable")
    ends = np.cumsum(np.bincount(packs)).tolist()
    indices = order[by_pack].tolist()
    return [indices[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def packing_fill(lengths: Sequence[int], packs: Sequence[Sequence[int]], *, capacity: int) -> float:
    """Return the share of the packs' tokens that is real, 1.0 where there are no packs."""
    return sum(lengths) / (len(packs) * capacity) if packs else 1.0

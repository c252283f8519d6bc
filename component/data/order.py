"""The order in which samples are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

#: Steps whose rows are sorted together: enough for rows of one length to meet, few enough for an epoch to stay mixed.
STEPS_PER_GROUP = 50
#: Least number of groups in an epoch: with fewer, the same rows would meet in every epoch.
MIN_GROUPS = 4


class EpochOrderSampler(Sampler[int]):
    """Gives a permutation of the rows that depends on seed, epoch and lengths alone.

    It reads and changes no global random state, so that a resumed run, or one with other workers, sees the same order.

    Args:
        num_rows: how many rows there are.
        seed: of the order.
        lengths: tokens of each row where rows of similar length are to meet in a step; None mixes all lengths.
        rows_per_step: rows of an optimizer step, over all micro-batches and processes; only read with `lengths`.
    """

    def __init__(
        self, num_rows: int, seed: int, *, lengths: Sequence[int] | None = None, rows_per_step: int = 1
    ) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.lengths = lengths
        self.rows_per_step = rows_per_step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        if self.lengths is None:
            return iter(epoch_order(self.num_rows, seed=self.seed, epoch=self.epoch))
        return iter(grouped_order(self.lengths, rows_per_step=self.rows_per_step, seed=self.seed, epoch=self.epoch))


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of an epoch: a permutation of range(num_rows)."""
    return torch.randperm(num_rows, generator=_generator(seed, epoch)).tolist()


def grouped_order(lengths: Sequence[int], *, rows_per_step: int, seed: int, epoch: int) -> list[int]:
    """Return an order of an epoch in which the rows of a step, and even more those of a micro-batch, are equally long.

    The mixed order of the epoch is cut into groups of some steps. In each, the rows are sorted by length, cut into
    steps, and the steps are mixed. The step's rows do not depend on how they are divided into micro-batches, nor among
    processes. The rows that are left over for an incomplete last step are those at the end of the mixed order.

    Args:
        lengths: tokens of each row.
        rows_per_step: rows of an optimizer step, over all micro-batches and processes.

    Returns:
        A permutation of range(len(lengths)).
    """
    generator = _generator(seed, epoch)
    mixed = torch.randperm(len(lengths), generator=generator).tolist()
    num_steps = len(mixed) // rows_per_step
    group_size = rows_per_step * min(STEPS_PER_GROUP, max(1, num_steps // MIN_GROUPS))
    num_grouped = num_steps * rows_per_step
    order: list[int] = []
    for start in range(0, num_grouped, group_size):
        group = sorted(mixed[start : min(start + group_size, num_grouped)], key=lambda row: -lengths[row])
        for step in torch.randperm(len(group) // rows_per_step, generator=generator).tolist():
            order += group[step * rows_per_step : (step + 1) * rows_per_step]
    return order + mixed[num_grouped:]


def _generator(seed: int, epoch: int) -> torch.Generator:
    # Hashed, since neighbouring seeds and epochs must not share an order, as they would in seed + epoch.
    digest = hashlib.sha256(f"order:{seed}:{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

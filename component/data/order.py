"""The order in which samples are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochOrderSampler(Sampler[int]):
    """Gives a permutation of the samples that depends on seed and epoch alone.

    It reads and changes no global random state, so that a resumed run, or one with other workers, sees the same order.

    Args:
        num_rows: how many samples there are.
        seed: of the order.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.num_rows, seed=self.seed, epoch=self.epoch))


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of an epoch: a permutation of range(num_rows)."""
    # Hashed, since neighbouring seeds and epochs must not share an order, as they would in seed + epoch.
    digest = hashlib.sha256(f"order:{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(num_rows, generator=generator).tolist()

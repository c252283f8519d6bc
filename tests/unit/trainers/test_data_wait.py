"""Time in which the loop waits for batches, and not that of anything else, is counted."""

from __future__ import annotations

import time

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset

from component.trainers.data_wait import time_batches
from component.trainers.token_counter import TokenCounter


class Slow(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.02)
        return torch.tensor([index])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_a_prepared_loader(num_workers: int) -> None:
    waits: list[float] = []
    loader = prepare_data_loader(DataLoader(Slow(), num_workers=num_workers))
    time_batches(loader.base_dataloader, waits.append)
    for epoch in (1, 2):
        assert [batch.item() for batch in loader] == [0, 1, 2]
        assert len(waits) == 4 * epoch  # the end is waited for too
    assert sum(waits) >= 2 * 0.02


def test_a_share_of_the_laps() -> None:
    counter = TokenCounter()
    assert counter.data_wait_share() is None
    counter.add_wait(100)
    counter.end_lap()
    counter.add_wait(0.25)
    counter.end_lap()
    assert [lap.data_wait for lap in counter.laps] == [100, 0.25]
    assert counter.data_wait_share() == 0.25 / counter.laps[1].seconds

"""From prepared samples to batches: labels, padding, order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from component.data.collators import PaddingCollator
from component.data.dataset import PreparedDataset
from component.data.order import EpochOrderSampler, epoch_order
from component.data.rows import Prepared, Source

SOURCE = Source("f", 1)
EOS = 2


def test_dataset() -> None:
    dataset = PreparedDataset([Prepared((5, 6, 7, EOS), ((2, 4),), SOURCE), Prepared((5, 6), ((0, 2),), SOURCE)])
    assert len(dataset) == 2
    assert dataset[0] == {"input_ids": [5, 6, 7, EOS], "labels": [-100, -100, 7, EOS]}
    assert dataset[1] == {"input_ids": [5, 6], "labels": [-100, 6]}


def test_padding_is_masked_by_length() -> None:
    samples = [
        {"input_ids": [EOS, 5, EOS], "labels": [-100, 5, EOS]},
        {"input_ids": [6], "labels": [-100]},
    ]
    batch = PaddingCollator(EOS)(samples)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[EOS, 5, EOS], [6, EOS, EOS]],
        "labels": [[-100, 5, EOS], [-100, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    padded = PaddingCollator(0, pad_to_multiple_of=8)(samples)
    assert all(tensor.shape == (2, 8) for tensor in padded.values())
    assert padded["attention_mask"].sum(1).tolist() == [3, 1]


@given(num_rows=st.integers(0, 200), seed=st.integers(0, 2**32), epoch=st.integers(0, 50))
def test_order_is_a_permutation(num_rows: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(num_rows, seed=seed, epoch=epoch)) == list(range(num_rows))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochOrderSampler(50, seed=7)
    first = list(sampler)
    before = torch.get_rng_state()
    torch.manual_seed(123)
    assert list(sampler) == first
    torch.set_rng_state(before)
    list(sampler)
    assert torch.equal(torch.get_rng_state(), before)
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert second == epoch_order(50, seed=7, epoch=1) != epoch_order(50, seed=8, epoch=0)
    assert len(sampler) == 50

"""From prepared samples to batches: labels, padding, order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from component.data.collators import PackingCollator, PaddingCollator
from component.data.dataset import PackedDataset, PreparedDataset
from component.data.order import STEPS_PER_GROUP, EpochOrderSampler, epoch_order, grouped_order
from component.data.rows import Prepared, Source
from component.data.samples import Samples

SOURCE = Source("f", 1)
EOS = 2


def test_dataset() -> None:
    samples = [Prepared((5, 6, 7, EOS), ((2, 4),), SOURCE), Prepared((5, 6), ((0, 2),), SOURCE)]
    dataset = PreparedDataset(Samples.of(samples))
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


def test_packs_are_one_row_with_positions_that_begin_again() -> None:
    """Also the label of a sample's first token is -100: another sample stands before it."""
    samples = [
        Prepared((5, 6, 7, EOS), ((2, 4),), SOURCE),
        Prepared((8, 9), ((0, 2),), SOURCE),
        Prepared((3, 4, EOS), ((0, 3),), SOURCE),
    ]
    dataset = PackedDataset(Samples.of(samples), [[0, 1], [2]])
    assert len(dataset) == 2
    assert dataset[0] == {"input_ids": [[5, 6, 7, EOS], [8, 9]], "labels": [[-100, -100, 7, EOS], [-100, 9]]}
    batch = PackingCollator()([dataset[0], dataset[1]])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, EOS, 8, 9, 3, 4, EOS]],
        "labels": [[-100, -100, 7, EOS, -100, 9, -100, 4, EOS]],
        "position_ids": [[0, 1, 2, 3, 0, 1, 0, 1, 2]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    first = PackingCollator()([{"input_ids": [[1, 2]], "labels": [[1, 2]]}])
    assert first["labels"].tolist() == [[-100, 2]]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=200),
    rows_per_step=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 50),
)
def test_grouped_order(lengths: list[int], rows_per_step: int, seed: int, epoch: int) -> None:
    """A permutation whose incomplete step comes last and is that of the mixed order; steps are sorted inside."""
    order = grouped_order(lengths, rows_per_step=rows_per_step, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(len(lengths)))
    left_over = len(order) % rows_per_step
    mixed = epoch_order(len(lengths), seed=seed, epoch=epoch)
    assert order[len(order) - left_over :] == mixed[len(order) - left_over :]
    for start in range(0, len(order) - left_over, rows_per_step):
        step = [lengths[row] for row in order[start : start + rows_per_step]]
        assert step == sorted(step, reverse=True)


def test_grouping_cuts_padding_and_mixes_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 1000, (4000,), generator=generator).tolist()

    def padding(order: list[int]) -> float:
        batches = [[lengths[row] for row in order[start : start + 4]] for start in range(0, len(order), 4)]
        return 1 - sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)

    sampler = EpochOrderSampler(4000, seed=1, lengths=lengths, rows_per_step=8)
    order = list(sampler)
    assert padding(epoch_order(4000, seed=1, epoch=0)) > 0.3
    assert padding(order) < 0.02
    longest = [lengths[order[start]] for start in range(0, 8 * STEPS_PER_GROUP, 8)]
    assert longest != sorted(longest, reverse=True)
    assert list(sampler) == order == grouped_order(lengths, rows_per_step=8, seed=1, epoch=0)
    sampler.set_epoch(1)
    assert list(sampler) == grouped_order(lengths, rows_per_step=8, seed=1, epoch=1) != order
    steps = [{frozenset(part[start : start + 8]) for start in range(0, 4000, 8)} for part in (order, list(sampler))]
    assert not steps[0] & steps[1]


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

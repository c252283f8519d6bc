"""Prompts in groups: the layout that TRL's trainer reads, each epoch its own order, no prompt left out."""

from __future__ import annotations

from component.data.groups import GroupSampler
from component.data.order import EpochOrderSampler, epoch_order


def sampler(num_prompts: int, **values: int | bool) -> GroupSampler:
    settings = {"num_generations": 2, "prompts_per_batch": 3, "num_passes": 1, **values}
    return GroupSampler(EpochOrderSampler(num_prompts, seed=5), **settings)


def test_the_layout_is_trls() -> None:
    """Against TRL's own sampler over the same order, where its prompts fill whole batches."""
    from trl.trainer.utils import RepeatSampler

    order = epoch_order(6, seed=5, epoch=0)
    theirs = RepeatSampler(range(6), mini_repeat_count=2, batch_size=3, repeat_count=4, shuffle=False)
    ours = sampler(6, num_passes=4)
    assert list(ours) == [order[index] for index in theirs]
    assert len(ours) == len(theirs) == 6 * 2 * 4


def test_a_last_batch_is_filled_up() -> None:
    order = epoch_order(4, seed=5, epoch=0)
    prompts = [*order, *order[:2]]
    assert list(sampler(4)) == [prompt for prompt in prompts for _ in range(2)]
    assert len(sampler(4)) == 12 and len(list(sampler(4))) == 12


def test_fewer_prompts_than_a_batch() -> None:
    first, second = epoch_order(2, seed=5, epoch=0)
    assert list(sampler(2, prompts_per_batch=5)) == [first, first, second, second] * 2 + [first, first]


def test_dropping_the_last_batch() -> None:
    assert len(list(sampler(5, drop_last=True))) == len(sampler(5, drop_last=True)) == 6
    assert len(sampler(2, drop_last=True)) == 0


def test_each_epoch_has_its_order() -> None:
    order = EpochOrderSampler(9, seed=1)
    groups = GroupSampler(order, num_generations=2, prompts_per_batch=3, num_passes=1)
    first = list(groups)
    order.set_epoch(1)
    second = list(groups)
    order.set_epoch(0)
    assert first == list(groups) != second and sorted(first) == sorted(second)

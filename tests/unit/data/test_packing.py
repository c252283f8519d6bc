"""First-fit decreasing: every sample once, nothing cut, full packs, the same on every machine."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from component.data.packing import pack, packing_fill


def first_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """The algorithm as the textbook has it."""
    packs: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        for number, room in enumerate(free):
            if room >= lengths[index]:
                packs[number].append(index)
                free[number] -= lengths[index]
                break
        else:
            packs.append([index])
            free.append(capacity - lengths[index])
    return packs


def chat_lengths(number: int) -> list[int]:
    """Log-normal, mean about 330 tokens, at most 2048."""
    generator = random.Random(0)
    return [min(2048, max(8, round(generator.lognormvariate(5.4, 0.9)))) for _ in range(number)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(st.integers(1, 60))
    return draw(st.lists(st.integers(1, capacity), max_size=120)), capacity


@given(problem=problems())
def test_it_is_first_fit_decreasing(problem: tuple[list[int], int]) -> None:
    lengths, capacity = problem
    packs = pack(lengths, capacity=capacity)
    assert packs == first_fit_decreasing(lengths, capacity)
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in members) <= capacity for members in packs)
    # Two packs that are half empty would have been one.
    assert sum(2 * sum(lengths[index] for index in members) <= capacity for members in packs) <= 1


def test_an_example() -> None:
    assert pack([3, 5, 2, 5], capacity=8) == [[1, 0], [3, 2]]
    assert packing_fill([3, 5, 2, 5], [[1, 0], [3, 2]], capacity=8) == 15 / 16
    assert pack([], capacity=8) == []
    assert packing_fill([], [], capacity=8) == 1.0


@pytest.mark.parametrize("number", [2_000, 20_000])
def test_chat_data_fills_its_packs(number: int) -> None:
    lengths = chat_lengths(number)
    assert 310 < sum(lengths) / number < 350 and max(lengths) == 2048
    assert packing_fill(lengths, pack(lengths, capacity=2048), capacity=2048) >= 0.99


def test_a_million_samples_take_seconds() -> None:
    lengths = chat_lengths(1_000_000)
    begun = time.process_time()
    packs = pack(lengths, capacity=2048)
    assert time.process_time() - begun < 30  # about 3 on one core
    assert packing_fill(lengths, packs, capacity=2048) >= 0.999
    assert sum(len(members) for members in packs) == len(lengths)


@pytest.mark.parametrize("lengths", [[4, 9], [0, 3]])
def test_lengths_that_fit_no_pack(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit packs of 1 to 8 tokens"):
        pack(lengths, capacity=8)

"""One seed repeats every generator."""

from __future__ import annotations

import random

import pytest

from component.runtime.seeds import seed_everything


@pytest.mark.parametrize("seed", [0, 42, 2**32 + 5])
def test_equal_seeds_give_equal_numbers(seed: int) -> None:
    import numpy
    import torch

    def draw() -> tuple:
        seed_everything(seed)
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    assert draw() == draw()
    first = draw()
    seed_everything(seed + 1)
    assert random.random() != first[0]

"""One seed for every random number generator of the process."""

from __future__ import annotations

import random


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, the latter on all devices.

    Args:
        seed: not negative; numpy takes it modulo 2**32.
    """
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)

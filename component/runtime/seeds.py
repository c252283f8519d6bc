"""The random number generators of the process: one seed for all, and their state."""

from __future__ import annotations

import random
from collections.abc import Callable


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


def capture_random_state() -> Callable[[], None]:
    """Note the state of all generators.

    Returns:
        A function that sets them back to it.
    """
    import numpy
    import torch

    python, numbers, cpu = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore() -> None:
        """Put every generator back where it was."""
        random.setstate(python)
        numpy.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore

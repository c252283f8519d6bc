"""What a plan says of a card."""

from __future__ import annotations

from dataclasses import replace

import pytest

from component.planning.gpus import GIB, GPUS
from component.planning.memory import MemoryPlan
from component.planning.plan import judge


@pytest.mark.parametrize(
    ("allocated", "reserved", "verdict"),
    [(10, 14.6, "fits"), (10, 14.7, "tight"), (15.0, 20, "tight"), (15.2, 20, "does not fit"), (15.2, 15.4, "tight")],
)
def test_verdicts(allocated: float, reserved: float, verdict: str) -> None:
    """A card of 16 GiB, of which CUDA takes 0.55 and auto leaves 0.8."""
    memory = MemoryPlan((), "", allocated * GIB, reserved * GIB, 0)
    assert judge(memory, replace(GPUS["4080"], memory_bytes=16 * GIB)) == verdict

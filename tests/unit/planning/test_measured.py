"""Predictions against single runs, most of them measured before the planner was written."""

from __future__ import annotations

from statistics import median

import pytest
from measured import MEASURED

from component.planning.gpus import GPUS
from component.planning.memory import plan_memory
from component.planning.step_time import plan_step_time

GIB = 2**30


def worst(errors: dict[str, float]) -> tuple[str, float]:
    return max(errors.items(), key=lambda item: abs(item[1]))


def test_peak_allocated_memory() -> None:
    errors = {item.name: plan_memory(item.workload).allocated / GIB / item.allocated - 1 for item in MEASURED}
    assert len(errors) == 42
    assert median(map(abs, errors.values())) <= 0.01
    assert abs(worst(errors)[1]) <= 0.065, worst(errors)


def test_peak_reserved_memory() -> None:
    known = {item.name: (item.workload, item.reserved) for item in MEASURED if item.reserved}
    errors = {name: plan_memory(work).reserved / GIB / reserved - 1 for name, (work, reserved) in known.items()}
    assert len(errors) == 22
    assert median(map(abs, errors.values())) <= 0.02
    assert abs(worst(errors)[1]) <= 0.065, worst(errors)


def test_time() -> None:
    errors = {}
    for item in MEASURED:
        time = plan_step_time(item.workload, GPUS["h200"], micro_batches=1)
        if item.tokens_per_second and time:
            errors[item.name] = item.tokens_per_second / time.tokens_per_second - 1
    assert len(errors) == 28
    assert median(map(abs, errors.values())) <= 0.05
    assert abs(worst(errors)[1]) <= 0.22, worst(errors)


@pytest.mark.parametrize("item", MEASURED, ids=lambda item: item.name)
def test_more_is_reserved_than_allocated(item) -> None:
    plan = plan_memory(item.workload)
    assert plan.reserved > plan.allocated

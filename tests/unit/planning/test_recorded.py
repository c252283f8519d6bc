"""Predictions against 49 runs that `script/benchmark.py plan` measured; vanilla's held-out ones by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
from recorded import RECORDED, recorded_results

from component.pipeline.benchmark.plan_cases import CASES
from component.pipeline.benchmark.plan_suite import Comparison, compare
from component.planning.gpus import GPUS, describe_gpu
from component.planning.optimizer import EIGHT_BIT, state_bytes


@pytest.fixture(scope="module")
def compared() -> list[Comparison]:
    return compare(CASES, recorded_results())


@pytest.fixture(scope="module")
def through_unsloth(repository: Path) -> list[Comparison]:
    results = json.loads((repository / "docs/benchmarks/plan-unsloth.json").read_text(encoding="utf-8"))
    return compare(CASES, results)


def test_all_are_there(compared: list[Comparison], through_unsloth: list[Comparison]) -> None:
    assert len(compared) == 26 == len(RECORDED) and len(through_unsloth) == 23
    assert sum(item.is_held_out for item in compared) == 15


@pytest.mark.parametrize(
    ("loader", "quantity", "held_out", "in_the_median", "at_worst"),
    [
        ("compared", "allocated", True, 0.005, 0.065),
        ("compared", "allocated", False, 0.006, 0.03),
        ("compared", "reserved", True, 0.03, 0.14),
        ("compared", "reserved", False, 0.06, 0.095),
        ("compared", "time", True, 0.08, 0.225),
        ("compared", "time", False, 0.08, 0.28),
        ("through_unsloth", "allocated", True, 0.01, 0.05),
        ("through_unsloth", "allocated", False, 0.015, 0.04),
        ("through_unsloth", "reserved", True, 0.025, 0.055),
        ("through_unsloth", "reserved", False, 0.03, 0.105),
        ("through_unsloth", "time", True, 0.05, 0.125),
        ("through_unsloth", "time", False, 0.05, 0.20),
    ],
)
def test_errors(
    request: pytest.FixtureRequest, loader: str, quantity: str, held_out: bool, in_the_median: float, at_worst: float
) -> None:
    """The vanilla loader's runs, and those through Unsloth whose raw results are in docs."""
    runs: list[Comparison] = request.getfixturevalue(loader)
    found = [abs(run.errors()[quantity]) for run in runs if run.is_held_out == held_out]
    assert median(found) <= in_the_median
    assert max(found) <= at_worst


def test_what_earlier_cases_left_is_no_part_of_a_peak(compared: list[Comparison]) -> None:
    """The first case began with nothing, the second with the libraries' 64 MiB, the last with the embeddings of two."""
    allocated = {item.name.removeprefix("vanilla, "): item.allocated for item in compared}
    first, second, *_, last = RECORDED
    assert allocated[first] == RECORDED[first][0]
    assert allocated[second] == RECORDED[second][0] - 512
    assert allocated[last] == RECORDED[last][0] - 1_158_284_800 + 64 * 2**20


def test_cards_of_one_speed_are_told_apart_by_memory() -> None:
    """H100 and H200 have the same peak; what moves weights does not."""
    assert GPUS["h100"].peak_flops == GPUS["h200"].peak_flops
    assert describe_gpu("NVIDIA H200", 139.8 * 2**30, (9, 0)).bandwidth == GPUS["h200"].bandwidth
    assert describe_gpu("NVIDIA H100 80GB HBM3", 79.6 * 2**30, (9, 0)).bandwidth == GPUS["h100"].bandwidth
    assert describe_gpu("NVIDIA H200", 139.8 * 2**30, None).capability == (9, 0)


def test_embeddings_keep_wide_states() -> None:
    """60 numbers with two 8-bit states and 40 with two float32 ones; other optimizers know one width."""
    assert state_bytes("adamw_8bit", 100, 40) == (pytest.approx(60 * 2 * EIGHT_BIT + 40 * 8), 0)
    assert state_bytes("paged_adamw_8bit", 100, 40) == (0, pytest.approx(60 * 2 * EIGHT_BIT + 40 * 8))
    assert state_bytes("adamw_torch_fused", 100, 40) == (800, 0)

"""What the planner says of suite `memory`: the peak of a run, and the longest row that fits a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from component.config.load import load_config
from component.pipeline.plan_run import plan_config
from component.planning.gpus import GPUS
from component.planning.memory import MemoryPlan, plan_memory
from component.planning.plan import judge
from component.planning.workload import Workload

#: Rows are longer by so many tokens, up to the last one.
STEP, LONGEST = 1024, 2**20


def plan_workload(model: str, settings: Mapping[str, Any]) -> Workload:
    """The largest micro-batch of a run.

    Args:
        model: id of a known shape, or a folder.
    """
    places = {"model_name_or_path": model, "train_file": "rows.jsonl", "output_dir": "run"}
    return plan_config(load_config({**settings, **places}), "h200").plan.workload


def plan_peak(model: str, settings: Mapping[str, Any]) -> MemoryPlan:
    """The peak of a run."""
    return plan_memory(plan_workload(model, settings))


def longest_row(model: str, settings: Mapping[str, Any], card: str) -> int:
    """Tokens of the longest row that fits a card, a multiple of STEP; 0 where none does.

    Args:
        card: a name of GPUS.
    """
    workload = plan_workload(model, {**settings, "max_seq_length": STEP})
    return STEP * last_that(
        lambda steps: judge(plan_memory(replace(workload, row_tokens=STEP * steps)), GPUS[card]) == "fits",
        LONGEST // STEP,
    )


def last_that(holds: Callable[[int], bool], most: int) -> int:
    """The last of 1, 2, ... `most` for which something holds that holds for all before it; 0 where it never does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low

"""Predictions of the planner, as it is now, beside what was measured of the same configs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from component.config.errors import ConfigError
from component.config.load import Config, load_config
from component.pipeline.benchmark.options import quote_names
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, Case
from component.pipeline.benchmark.plan_measurement import median_step
from component.pipeline.benchmark.results import DONE, Results, summarize
from component.planning.gpus import describe_gpu
from component.planning.plan import Plan, plan
from component.planning.read_config import DataSize, Setting, read_workload
from component.planning.shape import read_shape

UNKNOWN_SHAPES = "has configs that ended well of shapes that the suite does not know"


@dataclass(frozen=True)
class Comparison:
    """A case: what was predicted and measured, in bytes and seconds; None where it was not measured, or not alone."""

    name: str
    is_held_out: bool
    predicted: Plan
    allocated: float | None
    reserved: float | None
    seconds: float | None

    def errors(self) -> dict[str, float]:
        """Prediction over measurement, less one."""
        pairs = {
            "allocated": (self.predicted.memory.allocated, self.allocated),
            "reserved": (self.predicted.memory.reserved, self.reserved),
            "time": (self.predicted.time.seconds if self.predicted.time else None, self.seconds),
        }
        return {name: mine / real - 1 for name, (mine, real) in pairs.items() if mine and real}


def compare(cases: Iterable[Case], results: Results) -> list[Comparison]:
    """Predict each measured case with the planner as it is now.

    Raises:
        UserError: the settings of one are no config.
    """
    measured = ((case, summarize(results.runs(case))) for case in cases)
    return [_compare(case, run, results) for case, run in measured if run is not None and run["status"] == DONE]


def unknown_shapes(results: Results) -> list[str]:
    """Shapes of configs that ended well and that no case can have, so that nothing can be predicted of them."""
    return sorted({str(entry.get("shape")) for entry in _ended_well(results)} - CASE_SHAPES.keys())


def explain_nothing_compared(results: Results) -> str:
    """Why `compare` finds none of the suite's cases in a file of results."""
    measured = _ended_well(results)
    if not measured:
        return "has no config that ended well"
    unknown = unknown_shapes(results)
    if unknown:
        return f"{UNKNOWN_SHAPES}: {quote_names(unknown)}; known are {quote_names(CASE_SHAPES)}"
    names = [str(entry["name"]) for entry in measured]
    return f"has configs that ended well, but none of the suite's own: {quote_names(names)}"


def _ended_well(results: Results) -> list[Mapping[str, Any]]:
    return [entry for entry in results.content["cases"] if any(run["status"] == DONE for run in entry["runs"])]


def _compare(case: Case, result: Mapping[str, Any], results: Results) -> Comparison:
    config, shape = _config_of(case, result["settings"], results), read_shape(CASE_SHAPES[case.shape])
    assert shape is not None
    gpu = result["gpu"]
    is_cuda = gpu["kind"] == "cuda"
    capability = tuple(gpu["compute_capability"]) if is_cuda else None
    load, compute = result["precision"]
    has_liger = result["loader"] == "vanilla" and config.training.use_liger_kernel is True
    setting = Setting(
        result["loader"],
        load,
        compute,
        supports_varlen=True,
        has_liger=has_liger,
        chunks_loss=bool(result["loss"] and result["loss"]["got"]),
    )
    workload = read_workload(config, shape, setting, DataSize(**result["data"]))
    card = describe_gpu(gpu["name"], gpu["total_memory_bytes"], capability) if is_cuda else None
    timed = replace(workload, sample_tokens=result["data"]["mean_tokens"]) if workload.is_packed else None
    predicted = plan(workload, card, micro_batches=config.training.gradient_accumulation_steps, timed=timed)
    seconds = median_step(result["steps"]) if result["jobs"] == 1 else None
    peaks = (result[name] for name in ("peak_allocated_bytes", "peak_reserved_bytes"))
    return Comparison(case.name, case.is_held_out, predicted, *peaks, seconds)


def _config_of(case: Case, settings: Mapping[str, Any], results: Results) -> Config:
    try:
        return load_config(settings)
    except ConfigError as error:
        raise results.file.damage(f"settings of a run of '{case.name}': {error.problems[0]}") from error

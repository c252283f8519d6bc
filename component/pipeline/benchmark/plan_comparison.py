"""Predictions of the planner, as it is now, beside what was measured of the same configs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from component.config.errors import ConfigError
from component.config.load import Config, load_config
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, Case
from component.pipeline.benchmark.plan_measurement import median_step
from component.pipeline.benchmark.results import DONE, Results, summarize
from component.planning.gpus import describe_gpu
from component.planning.plan import Plan, plan
from component.planning.read_config import DataSize, Setting, read_workload
from component.planning.shape import read_shape


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

"""Measure a case in this process, as train.py would run it, and keep the result."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark.case import file_name
from component.pipeline.benchmark.plan_cases import Case
from component.pipeline.benchmark.plan_fields import MEASURED, MEASURED_UNDER_A_CAP, UNFINISHED_RUN
from component.pipeline.benchmark.process_memory import release_memory
from component.pipeline.benchmark.results import DONE, Results, now
from component.pipeline.build_run import build_trainer, load_weights
from component.pipeline.plan_run import data_size
from component.pipeline.prepare import PreparedRun, prepare
from component.planning.gpus import GIB
from component.runtime.allocator import allocator_settings, expand_segments
from component.runtime.environment import REPOSITORY, environment_facts
from component.runtime.hardware import Hardware, detect_hardware

SUITE = "plan"
#: The same suite under caps of memory, whose results are no measurement of what a config takes.
CAPPED = "plan-capped"
#: Of a case.
NUM_STEPS = 5


@dataclass(frozen=True)
class Scratch:
    """Where a process makes what it needs.

    Attributes:
        root: of the suite; all processes share its checkpoints.
        name: of the process's own folder in it.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Of rows, runs, caches and the log of this process."""
        return self.root / self.name

    @property
    def models(self) -> Path:
        """Of random checkpoints."""
        return self.root / "models"


def open_results(path: Path, suite: str = SUITE, *, option: str = "--output") -> Results:
    """The results of the suite in a file, which may not exist yet.

    Args:
        suite: SUITE or CAPPED.
        option: that names another file, for messages.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    measured = MEASURED_UNDER_A_CAP if suite == CAPPED else MEASURED
    return Results(path, suite, lambda _entry: measured, of_failed=UNFINISHED_RUN, option=option)


def measure_case(case: Case, results: Results, scratch: Scratch, *, jobs: int = 1) -> None:
    """Measure a case and keep its result.

    Args:
        jobs: processes that are at work on the GPU, this one among them; with more than one no time is measured.

    Raises:
        UserError: it has a cap, and this process's memory cannot be limited so.
    """
    # As `prepare` does for a run, but before anything here imports torch.
    expand_segments()
    if case.cap_gib is not None:
        check_cap(case.cap_gib, detect_hardware())
    shutil.rmtree(scratch.folder / "run", ignore_errors=True)
    surroundings = environment_facts(REPOSITORY)
    results.add(case, {"status": DONE, "date": now(), **_measure(case, scratch), "jobs": jobs}, surroundings)


def check_cap(cap_gib: float, hardware: Hardware) -> None:
    """Check that a cap limits something, before a checkpoint is made.

    Raises:
        UserError: torch sees no NVIDIA GPU, or one with less memory than the cap.
    """
    if hardware.kind != "cuda":
        raise UserError(
            f"--cap: torch finds no NVIDIA GPU, and nothing limits the memory of {hardware.name}; look at the driver, "
            "torch's build and CUDA_VISIBLE_DEVICES"
        )
    if cap_gib * GIB > hardware.total_memory_bytes:
        size = hardware.total_memory_bytes / GIB
        raise UserError(f"--cap: {cap_gib:.2f} GiB is more than {hardware.name} has, {size:.2f} GiB; take a larger GPU")


def _measure(case: Case, scratch: Scratch) -> dict[str, Any]:
    began = time.monotonic()
    settings = case_settings(case, scratch)
    if case.loader == "unsloth":
        _import_unsloth_first(settings)
    from component.pipeline.benchmark.plan_case_files import write_checkpoint, write_rows

    write_checkpoint(scratch.models, case.shape)
    settings["train_file"] = str(write_rows(scratch.folder / "rows", case, num_steps=NUM_STEPS))
    release_memory()
    prepared = prepare(load_config(settings))
    made_at = time.monotonic()
    measured = _train(prepared)
    return {
        "settings": settings,
        "loader": prepared.loader.got,
        "precision": [prepared.precision.load_dtype, prepared.precision.compute_dtype],
        "data": asdict(data_size(prepared)),
        "gpu": asdict(prepared.hardware),
        "cuda_allocator": allocator_settings(),
        **measured,
        "seconds": {"files": round(made_at - began, 2), "all": round(time.monotonic() - began, 2)},
    }


def case_settings(case: Case, scratch: Scratch) -> dict[str, Any]:
    """All keys of a case's config."""
    return {
        "model_name_or_path": str(scratch.models / file_name(case.shape)),
        "train_file": str(scratch.folder / "rows/rows.jsonl"),
        "output_dir": str(scratch.folder / "run"),
        "cache_dir": str(scratch.folder / "cache"),
        "truncation": "keep_start",
        "max_steps": NUM_STEPS,
        "logging_strategy": "no",
        "save_strategy": "no",
        "learning_rate": 1e-5,
        "group_by_length": False,
        "max_bad_rows": 1.0,
        **({"quantized_cache": False} if case.mode == "qlora" else {}),  # the disk holds no more than one checkpoint
        **case.settings(),
    }


def _import_unsloth_first(settings: dict[str, Any]) -> None:
    """It must come before transformers, which making a checkpoint imports."""
    from component.models.unsloth import import_unsloth

    # A folder need not exist for that: the hub is off.
    config = load_config(settings)
    Path(config.model.model_name_or_path).mkdir(parents=True, exist_ok=True)
    stand_in = Path(config.model.model_name_or_path) / "config.json"
    if not stand_in.is_file():
        stand_in.write_text('{"model_type": "llama"}', encoding="utf-8")
    import_unsloth(config.model, detect_hardware())


def _train(prepared: PreparedRun) -> dict[str, Any]:
    import torch

    from component.trainers.callbacks.step_timer import StepTimer

    model = load_weights(prepared)
    load_peak = _peaks(torch)["peak_allocated_bytes"]
    folder = Path(prepared.config.run.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    built = build_trainer(prepared, model)
    trainer = built.trainer
    timer = StepTimer()
    trainer.add_callback(timer)
    release_memory()
    after_load = torch.cuda.memory_allocated() if torch.cuda.is_available() else None
    trainer.train()
    return {
        **_peaks(torch),
        "load_peak_bytes": load_peak,
        "loaded_bytes": after_load,
        "steps": [round(seconds, 4) for seconds in timer.seconds],
        "loss": built.context.decided.get("loss_chunk_tokens"),
        "got": {key: str(value) for key, value in model.got.items()},
    }


def median_step(seconds: Sequence[float]) -> float:
    """Of all steps but the first, which compiles; so may a later one whose batch is of another shape."""
    return statistics.median(seconds[1:])


def _peaks(torch: Any) -> dict[str, int | None]:
    if not torch.cuda.is_available():
        return {"peak_allocated_bytes": None, "peak_reserved_bytes": None}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }

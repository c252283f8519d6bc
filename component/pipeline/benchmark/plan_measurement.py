"""Measure cases in this process, one after the other, as train.py would run them; each result is kept at once."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import write_atomically
from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark.locked_file import locked
from component.pipeline.benchmark.plan_cases import Case
from component.pipeline.benchmark.process_memory import release_memory
from component.pipeline.benchmark.results_file import Fields, check_fields, read_json_object
from component.pipeline.build_run import build_trainer
from component.pipeline.load_models import load_models
from component.pipeline.plan_run import data_size
from component.pipeline.prepare import PreparedRun, prepare
from component.runtime.seeds import seed_everything

#: Of a case.
NUM_STEPS = 5

#: Fields of the result of a config that was measured, of its data and of its card.
MEASURED: Fields = {
    "settings": dict, "loader": str, "precision": list, "data": dict, "gpu": dict, "step_seconds": (int, float),
    "peak_allocated_bytes": (int, type(None)), "peak_reserved_bytes": (int, type(None)),
}  # fmt: skip
DATA: Fields = {"num_rows": int, "mean_tokens": (int, float), "longest": int}
CARD: Fields = {"kind": str, "name": str, "total_memory_bytes": int}


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

    def begin(self, case: Case) -> None:
        """Note which case is at work, and clear its place."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(case.name, encoding="utf-8")
        shutil.rmtree(self.folder / "run", ignore_errors=True)

    def forget(self) -> None:
        """No case is at work."""
        self._note.unlink(missing_ok=True)

    def started(self) -> str | None:
        """Name of the case that was begun last."""
        return self._note.read_text(encoding="utf-8") if self._note.is_file() else None

    @property
    def _note(self) -> Path:
        return self.folder / "started.txt"


def read_results(path: Path) -> dict[str, Any]:
    """Results so far, by name of the case.

    Args:
        path: of their file, which may not exist yet.

    Raises:
        UserError: the file is damaged, or of another suite.
    """
    if not path.exists():
        return {}
    results = read_json_object(path)
    if "schema_version" in results:
        raise UserError(f"{path}: results of another suite, not of plan; move it, or name another --output")
    for name, result in results.items():
        has_failed = isinstance(result, dict) and "failed" in result
        check_fields(path, json.dumps(name), result, {"failed": list} if has_failed else MEASURED)
        if has_failed:
            continue
        check_fields(path, f"{json.dumps(name)}.data", result["data"], DATA)
        check_fields(path, f"{json.dumps(name)}.gpu", result["gpu"], CARD)
    return results


def keep_result(path: Path, case: Case, result: dict[str, Any]) -> None:
    """Add a result to those on disk; several processes may."""
    with locked(path):
        results = {**read_results(path), case.name: {"held_out": case.is_held_out, **result}}
        write_atomically(path, json.dumps(results, indent=1) + "\n")


def measure_cases(cases: Sequence[Case], path: Path, scratch: Scratch, *, deadline: float, jobs: int = 1) -> None:
    """Measure cases until a time of `time.monotonic()`.

    Args:
        path: of the results.
        jobs: processes that are at work on the GPU, this one among them; with more than one no time is measured.

    Raises:
        Exception: whatever a case fails with; `scratch.started` names it.
    """
    for case in cases:
        if time.monotonic() > deadline:
            return
        scratch.begin(case)
        keep_result(path, case, {**_measure(case, scratch), "jobs": jobs})
        release_memory()


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
        **measured,
        "seconds": {"files": round(made_at - began, 2), "all": round(time.monotonic() - began, 2)},
    }


def case_settings(case: Case, scratch: Scratch) -> dict[str, Any]:
    """All keys of a case's config."""
    model = "".join(letter if letter.isalnum() else "-" for letter in case.shape)
    return {
        "model_name_or_path": str(scratch.models / model),
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
    from component.runtime.hardware import detect_hardware

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

    seed_everything(prepared.config.model.seed)
    left_over = _peaks(torch)["peak_allocated_bytes"]
    model = load_models(prepared)
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
        "left_over_bytes": left_over,
        "step_seconds": round(median_step(timer.seconds), 5),
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

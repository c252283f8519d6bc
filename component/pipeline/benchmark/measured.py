"""What a child has measured, in one form for train.py and baselines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from component.artifacts.metrics import read_metrics
from component.config.errors import EXIT_DONE, EXIT_OUT_OF_MEMORY
from component.pipeline.benchmark.case import TRAIN, Case
from component.pipeline.benchmark.child import Ended
from component.pipeline.benchmark.results import DONE, FAILED, OUT_OF_MEMORY

#: What a baseline writes into its output folder when it has ended, in the form that `read_run` gives.
RESULT = "result.json"
#: How lack of memory shows in the output of a program that did not catch it: torch's, Triton's, cuBLAS' and that of
#: bitsandbytes, which ends the process.
SIGNS_OF_MEMORY = (
    "OutOfMemoryError",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Error out of memory at line",
)
#: Parts of run.json that a result keeps as they are.
KEPT_OF_MANIFEST = ("config", "loader", "notices", "plan", "timings", "metrics", "auto")


def read_run(case: Case, output: Path, ended: Ended) -> dict[str, Any]:
    """The result of a child: its status, and what it measured where it came to its end."""
    run: dict[str, Any] = {
        "status": status_of(ended),
        "exit_code": ended.code,
        "seconds": round(ended.seconds, 2),
        "first_step_seconds": None if ended.first_step_seconds is None else round(ended.first_step_seconds, 2),
    }
    if run["status"] != DONE:
        return {**run, "reason": reason_of(ended.lines), "lines": list(ended.lines), **_choice_of(output)}
    measured = read_manifest(output, case.warm_up) if case.program == TRAIN else _read(output / RESULT)
    return {**run, **measured}


def _choice_of(output: Path) -> dict[str, Any]:
    """What `auto` chose for a run of train.py that did not come to its end, so far as its run.json was written."""
    try:
        content = _read(output / "run.json")
    except (OSError, ValueError):
        return {}
    return {"manifest": {"auto": content["auto"]}} if content.get("auto") else {}


def status_of(ended: Ended) -> str:
    """How a child ended, in the words of the results."""
    if ended.code == EXIT_DONE:
        return DONE
    if ended.code == EXIT_OUT_OF_MEMORY or any(sign in line for line in ended.lines for sign in SIGNS_OF_MEMORY):
        return OUT_OF_MEMORY
    return FAILED


def reason_of(lines: Sequence[str]) -> str:
    """The line of a failed child's output that says most: its last one that is not empty."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def read_manifest(folder: Path, warm_up: int) -> dict[str, Any]:
    """What a run of train.py measured.

    Args:
        warm_up: first steps, which are not timed.
    """
    manifest = _read(folder / "run.json")
    metrics, details = manifest["metrics"], manifest["loader"].get("details", {})
    records = [record for record in read_metrics(folder) if "loss" in record]
    speed = speed_after(records, warm_up) or metrics["real_tokens_per_second"]
    real, padded = metrics["real_tokens_per_second"], metrics["padded_tokens_per_second"]
    return {
        "real_tokens_per_second": speed,
        "median_tokens_per_second": median_speed_after(records, warm_up),
        "padded_tokens_per_second": speed * padded / real if speed and real and padded else None,
        # Without a GPU the run's metrics have the memory of the process.
        "peak_allocated_bytes": metrics["peak_allocated_bytes"] if metrics["peak_reserved_bytes"] else None,
        "peak_reserved_bytes": metrics["peak_reserved_bytes"],
        "first_loss": metrics["first_loss"],
        "last_loss": metrics["last_loss"],
        "eval_loss": metrics["eval_loss"],
        "losses": [[record["step"], record["loss"]] for record in records],
        "attention": attention_of(details),
        "manifest": {name: manifest[name] for name in KEPT_OF_MANIFEST if name in manifest},
    }


def speed_after(records: Sequence[Mapping[str, Any]], warm_up: int) -> float | None:
    """Real tokens per second of the stretches between logged lines that begin after the warm-up; None without one.

    Args:
        records: of metrics.jsonl, those of training.
    """
    stretches = _stretches_after(records, warm_up)
    seconds = sum(tokens / speed for tokens, speed in stretches)
    return sum(tokens for tokens, _ in stretches) / seconds if stretches else None


def median_speed_after(records: Sequence[Mapping[str, Any]], warm_up: int) -> float | None:
    """The median of these stretches: in an epoch of a few steps, compiling once more for the last batch counts much."""
    stretches = _stretches_after(records, warm_up)
    return statistics.median(speed for _, speed in stretches) if stretches else None


def _stretches_after(records: Sequence[Mapping[str, Any]], warm_up: int) -> list[tuple[float, float]]:
    """Tokens and tokens per second of each."""
    return [
        (record["total_tokens"] - before["total_tokens"], record["tokens_per_second"])
        for before, record in zip(records, records[1:], strict=False)
        if before["step"] >= warm_up and record.get("tokens_per_second")
    ]


def attention_of(details: Mapping[str, Any]) -> str | None:
    """What rows ran on, from `loader.details` of run.json."""
    packing = details.get("packing") or {}
    return packing.get("attention") or (details.get("got") or {}).get("attn_implementation")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))

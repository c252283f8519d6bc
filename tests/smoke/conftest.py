"""A finished run that several tests look at, and ways to compare runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What a line of metrics.jsonl says of the machine rather than of the training.
MEASURED = ("tokens_per_second", "peak_memory_bytes")


@pytest.fixture(scope="session")
def sft_settings(tiny_settings: dict[str, Any], conversations: Path) -> dict[str, Any]:
    """QLoRA over three epochs of three steps, with all that draws random numbers or looks across steps."""
    return {
        **tiny_settings,
        "eval_split": 6,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 3,
        "lora_dropout": 0.1,
        "logging_steps": 2,
        "eval_strategy": "epoch",
        "num_eval_generations": 1,
        "generation_max_new_tokens": 8,
        "report_to": "tensorboard",
    }


@pytest.fixture(scope="session")
def finished_run(sft_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of those settings that was never interrupted."""
    from component.pipeline import run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    run({**sft_settings, "output_dir": str(folder)})
    return folder


@pytest.fixture(scope="session")
def trained_metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl without what they say of the machine."""
    from component.artifacts.metrics import read_metrics

    def read(folder: Path) -> list[dict[str, Any]]:
        return [{key: value for key, value in record.items() if key not in MEASURED} for record in read_metrics(folder)]

    return read

"""A finished run that several tests look at, and ways to compare runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: What a line of metrics.jsonl says of the machine rather than of the training.
MEASURED = ("tokens_per_second", "peak_memory_bytes")


@pytest.fixture(autouse=True)
def _blank_pictures(blank_pictures: None) -> None:
    """Runs of the tests; those of fixtures for many of them, such as finished_run, draw."""


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


@pytest.fixture(scope="session")
def preference_settings(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two epochs of three steps on pairs of unequal lengths, of which the last step has fewer; four are held out."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {
            "prompt": f"Say the number {index}, or a few.",
            "chosen": f"Yes: {index}." + " And one more." * (index % 3),
            "rejected": "No" + ", no" * (index % 4) + f", not {index}.",
        }
        for index in range(20)
    ]
    rows = [{key: [{"role": "user" if key == "prompt" else "assistant", "content": text}] for key, text in row.items()}
            for row in rows]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        **tiny_settings,
        "train_file": str(file),
        "eval_split": 4,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 3,
        "learning_rate": 5e-3,
        "warmup_steps": 0,
    }


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other tokens than tiny_model."""
    from component.models.tiny import Shape, make_tiny_model

    folder = tmp_path_factory.mktemp("other")
    (folder / "text.txt").write_text("quite another lot of letters, joined in other pairs\n" * 4, encoding="utf-8")
    shape = Shape(hidden_size=32, intermediate_size=64, num_hidden_layers=1, max_position_embeddings=512)
    make_tiny_model(folder / "model", shape=shape, seed=0, texts=[folder / "text.txt"])
    return folder / "model"


@pytest.fixture(scope="session")
def signal_at() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`signal_at(text, number)`: send this process a signal once a log line holds `text`, while that step is done."""
    from loguru import logger

    from component.runtime.logging import configure_logging

    @contextlib.contextmanager
    def watching(text: str, number: signal.Signals) -> Iterator[None]:
        sent = []

        def watch(message: Any) -> None:
            if text in message and not sent:
                sent.append(message)
                os.kill(os.getpid(), number)

        configure_logging(None, 0)  # its first call removes every other sink
        sink = logger.add(watch, format="{message}")
        try:
            yield
        finally:
            logger.remove(sink)
        assert sent, f"no log line with {text!r}"

    return watching


@pytest.fixture(scope="session")
def task_settings(
    tiny_settings: dict[str, Any], preference_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Settings of a small run of each task, with rows held out; a new task has its entry here."""
    documents = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    texts = [f"{index} herons wait. " * (1 + index % 3) + "Then they go." for index in range(20)]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    labelled = tmp_path_factory.mktemp("labelled") / "answers.jsonl"
    rows = [
        {
            "prompt": f"Is {index} even?",
            "completion": "Yes" if index % 2 else "No, " * (index % 3),
            "label": index % 3 > 0,
        }
        for index in range(20)
    ]
    rows = [row | {"completion": row["completion"] + "."} for row in rows]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prompts = labelled.with_name("prompts.jsonl")
    rows = [{"prompt": f"Say {index}" + ", or more" * (index % 3) + ": ", "solution": index} for index in range(11)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    grpo = {
        "task_type": "grpo", "train_file": str(prompts), "eval_split": 2,
        "reward_functions": ["numeric_answer", "length"],
        "reward_arguments": {"length": {"min_tokens": 6, "max_tokens": 12}}, "num_generations": 4,
        "max_completion_length": 24, "per_device_train_batch_size": 4, "beta": 0.05, "temperature": 0.7,
    }  # fmt: skip
    return {
        "pretrain": {**tiny_settings, "task_type": "pretrain", "train_file": str(documents), "eval_split": 4},
        "sft": {**tiny_settings, "task_type": "sft", "eval_split": 4},
        "dpo": {**preference_settings, "task_type": "dpo"},
        "kto": {**preference_settings, "task_type": "kto", "train_file": str(labelled)},
        "orpo": {**preference_settings, "task_type": "orpo"},
        "cpo": {**preference_settings, "task_type": "cpo"},
        "reward": {**preference_settings, "task_type": "reward"},
        "grpo": {**preference_settings, **grpo},
    }

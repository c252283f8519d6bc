"""script/benchmark.py tasks: runs of train.py on rows that it makes; what it measures is the runs' own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from component.config.errors import UserError
from component.pipeline.benchmark import task_suite
from component.pipeline.benchmark.task_suite import compare_tasks, make_rows
from component.registry import TASK_ROW_KINDS

#: The tiny tokenizer takes the words apart, so that rows are longer than with the usual ones.
ON_A_CPU = [
    "use_cpu=true", "bf16=false", "max_seq_length=512", "per_device_train_batch_size=2", "lora_rank=4",
    "truncation=keep_start", "max_bad_rows=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _warm_processes(monkeypatch: pytest.MonkeyPatch, run_python: Callable[..., Any]) -> None:
    monkeypatch.setattr(task_suite, "subprocess", SimpleNamespace(run=run_python))


def test_a_task(tiny_model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (result,) = compare_tasks(
        str(tiny_model), tmp_path, tasks=["dpo"], loaders=["vanilla"], steps=2, overrides=ON_A_CPU,
        say=said.append,
    )  # fmt: skip
    assert result.code == 0, (tmp_path / "dpo-vanilla.log").read_text()
    metrics = json.loads((tmp_path / "dpo-vanilla" / "run.json").read_text(encoding="utf-8"))["metrics"]
    assert result.tokens_per_second == metrics["real_tokens_per_second"] > 0
    second = json.loads((tmp_path / "dpo-vanilla" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert result.median_tokens_per_second == second["tokens_per_second"]
    assert result.losses[0] == pytest.approx(0.693147, rel=1e-5) and len(result.losses) == 2
    assert said[-1].startswith("| dpo | vanilla | ")
    assert (tmp_path / "tasks.md").read_text(encoding="utf-8") == "\n".join(said) + "\n"
    assert [item["task"] for item in json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))] == ["dpo"]


def test_a_run_that_fails_is_a_row(tmp_path: Path) -> None:
    (result,) = compare_tasks(
        str(tmp_path / "none"), tmp_path, tasks=["sft"], loaders=["vanilla"], steps=1, overrides=[], say=print
    )
    assert result.code == 2 and "exit 2: model_name_or_path:" in result.row()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "--model: {model} is no folder (looked at {model}); name a local folder or a hub id"),
        ("empty", "--model: {model} has no config.json or adapter_config.json; name a model"),
    ],
)
def test_no_such_model(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is made or run."""
    monkeypatch.setattr(task_suite, "subprocess", None)
    (tmp_path / "empty").mkdir()
    parser = argparse.ArgumentParser()
    task_suite.add_options(parser)
    model, output = tmp_path / name, tmp_path / "output"
    with pytest.raises(UserError) as refused:
        task_suite.run_suite(parser.parse_args(["--model", str(model), "--output", str(output)]))
    assert str(refused.value) == message.format(model=model) and not output.exists()


def test_rows_are_the_same_each_time() -> None:
    for kind in set(TASK_ROW_KINDS.values()):
        assert list(make_rows(kind)) == list(make_rows(kind))


def test_an_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--tasks: there is no task dop; use pretrain, sft"):
        compare_tasks("m", tmp_path, tasks=["dop"], loaders=[], steps=1, overrides=[], say=print)

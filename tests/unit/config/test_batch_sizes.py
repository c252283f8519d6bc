"""The rows of an optimizer step: which key says them, which wins, and where the card may choose the micro-batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import ConfigError
from component.config.load import Config, load_config
from component.pipeline.batches import settle_batches
from component.pipeline.steps import num_rows_per_step

BASE = {"model_name_or_path": "m", "train_file": "rows.jsonl", "output_dir": "out"}


def load(**values: Any) -> Config:
    return load_config({**BASE, **values})


def batch(config: Config) -> tuple[Any, ...]:
    training = config.training
    return (
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.global_batch_size,
        training.per_device_eval_batch_size,
    )


@pytest.mark.parametrize(
    ("values", "loaded", "settled"),
    [
        ({}, (4, 4, None, 4), (4, 4, None, 4)),
        ({"gradient_accumulation_steps": 3}, (4, 3, None, 4), (4, 3, None, 4)),
        ({"global_batch_size": 32}, (4, None, 32, 4), (4, 8, 32, 4)),
        ({"per_device_train_batch_size": "auto"}, ("auto", None, 16, None), ("auto", None, 16, None)),
        (
            {"per_device_train_batch_size": "auto", "global_batch_size": 6, "per_device_eval_batch_size": 2},
            ("auto", None, 6, 2),
            ("auto", None, 6, 2),
        ),
    ],
)
def test_what_follows(values: dict[str, Any], loaded: tuple[Any, ...], settled: tuple[Any, ...]) -> None:
    config = load(**values)
    assert batch(config) == loaded
    assert batch(settle_batches(config)) == settled
    assert settle_batches(config).written == config.written
    assert num_rows_per_step(settle_batches(config).training) == (settled[2] or settled[0] * settled[1])


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        (
            {"global_batch_size": 30},
            ["config: global_batch_size: global_batch_size 30 is no multiple of per_device_train_batch_size 4; make it "
             "one, or set per_device_train_batch_size: auto"],
        ),
        (
            {"gradient_accumulation_steps": 2, "global_batch_size": 16},
            ["config: gradient_accumulation_steps: gradient_accumulation_steps 2 beside global_batch_size: 16, which "
             "decides it; drop gradient_accumulation_steps and set global_batch_size, or set global_batch_size null"],
        ),
        (
            {"per_device_train_batch_size": "auto", "dataloader_drop_last": True},
            ["config: per_device_train_batch_size: auto lets the card choose the micro-batch, and dataloader_drop_last "
             "drops as many rows as an incomplete micro-batch has; set dataloader_drop_last: false, or "
             "per_device_train_batch_size to a number"],
        ),
    ],
)  # fmt: skip
def test_what_is_refused(values: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load(**values)
    assert [str(problem).replace("arguments", "config") for problem in raised.value.problems] == messages


@pytest.mark.parametrize(
    "values",
    [
        {"task_type": "kto"},
        {"task_type": "grpo", "reward_functions": "length", "steps_per_generation": 2},
        {"task_type": "grpo", "reward_functions": "length", "num_iterations": 2},
    ],
    ids=["kto", "steps_per_generation", "num_iterations"],
)
def test_tasks_whose_micro_batch_matters(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="auto lets the card choose the micro-batch, and "):
        load(**values, per_device_train_batch_size="auto")
    load(**values)


def test_a_later_layer_wins_over_the_accumulation_of_a_base(tmp_path: Path) -> None:
    """And says so; in one layer, or from a later one, the two stay a contradiction."""
    base, path = tmp_path / "base.json", tmp_path / "config.json"
    base.write_text(json.dumps({"gradient_accumulation_steps": 8}))
    path.write_text(json.dumps({**BASE, "base": ["base.json"]}))
    for overrides in (["global_batch_size=32"], ["per_device_train_batch_size=auto"]):
        config = load_config(path, overrides)
        assert config.training.gradient_accumulation_steps is None
        assert [str(notice) for notice in config.notices] == [
            f"{base}:1:2: gradient_accumulation_steps: 8 gives way to {overrides[0].replace('=', ': ')}"
        ]
    path.write_text(json.dumps({**BASE, "global_batch_size": 32}))
    with pytest.raises(ConfigError, match="which decides it"):
        load_config(path, ["gradient_accumulation_steps=8"])
    assert batch(load_config(path, ["gradient_accumulation_steps=8", "global_batch_size=null"]))[:3] == (4, 8, None)


def test_several_processes_share_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert batch(settle_batches(load(global_batch_size=32)))[:2] == (4, 4)
    with pytest.raises(Exception, match="12 rows on 2 processes are 6 each, no multiple of .* 4"):
        settle_batches(load(global_batch_size=12))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(Exception, match="16 rows cannot be shared evenly by 3 processes"):
        settle_batches(load(per_device_train_batch_size="auto"))

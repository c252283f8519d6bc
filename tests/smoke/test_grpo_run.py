"""Runs of grpo: rewards rise, runs go on exactly, and a reward that fails loses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from component.artifacts.metrics import read_metrics
from component.config.errors import InterruptedRun, UserError
from component.pipeline import run
from component.trainers.rewards.interface import RewardError


@pytest.fixture(scope="module")
def settings(task_settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**task_settings["grpo"], "train_mode": "lora"}


def completions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text(encoding="utf-8").splitlines()]


def decided(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["loader"]["details"]


def same_adapters(one: Path, other: Path) -> bool:
    return len({(folder / "adapter_model.safetensors").read_bytes() for folder in (one, other)}) == 1


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo") / "run"
    run({**settings, "output_dir": str(folder)})
    return folder


def test_what_a_run_leaves(finished: Path) -> None:
    """9 prompts x 4 completions fill 5 steps of 8 in each of 2 epochs, one prompt twice."""
    lines = [line for line in read_metrics(finished) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 11))
    for line in lines:
        assert line["reward"] == pytest.approx(
            line["rewards/numeric_answer/mean"] + line["rewards/length/mean"], rel=1e-5
        )
        assert 1 <= line["completions/min_length"] <= line["completions/mean_length"] <= 24
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-7), "the reference is not the start"
    assert lines[-1]["kl"] > 1e-4, "nothing was learned"
    assert lines[-1]["supervised_tokens"] < lines[-1]["total_tokens"]
    records = completions(finished)
    assert {record["split"] for record in records} == {"training", "evaluation"}
    first = records[0]
    assert (
        first["step"] == 1
        and first["prompt"].startswith("Say ")
        and set(first["rewards"]) == {"numeric_answer", "length"}
    )
    assert decided(finished)["reference"] == "the starting model: its base with the adapter switched off"
    notices = json.loads((finished / "run.json").read_text(encoding="utf-8"))["notices"]
    assert (
        "grpo: 2 prompts are sampled from at once; 1 of 9 are answered twice in an epoch, to fill up its last batch"
        in notices
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_iterations": 2, "steps_per_generation": 4, "save_steps": 3}],
    ids=["on_policy", "amid_a_batch_of_completions"],
)
def test_an_interrupted_run_goes_on_exactly(
    changes: dict[str, Any],
    settings: dict[str, Any],
    tmp_path: Path,
    signal_at: Any,
    trained_metrics: Callable[[Path], list[dict[str, Any]]],
) -> None:
    settings = {**settings, **changes, "logging_steps": 2, "max_steps": 6}
    run({**settings, "output_dir": str(tmp_path / "alone")})
    again = {**settings, "output_dir": str(tmp_path / "stopped")}
    with signal_at("step 2/6", signal.SIGINT), pytest.raises(InterruptedRun):
        run(again)
    run(again)
    assert trained_metrics(tmp_path / "stopped") == trained_metrics(tmp_path / "alone")
    assert completions(tmp_path / "stopped") == completions(tmp_path / "alone")
    assert same_adapters(tmp_path / "stopped", tmp_path / "alone")


def test_a_reward_that_fails_amid_training_loses_nothing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """The run stops with a checkpoint of the step before; mended, it ends as one that never failed."""
    monkeypatch.chdir(tmp_path)
    good = "def mine(completions):\n    return [len(text) / 10 for text in completions]\n"
    settings = {**settings, "reward_functions": "rewards.py:mine", "reward_arguments": {}, "eval_split": None}
    settings |= {"save_strategy": "no", "max_steps": 4}
    Path("rewards.py").write_text(good, encoding="utf-8")
    run({**settings, "output_dir": str(tmp_path / "alone")})
    calls = "import itertools\ncalls = itertools.count()\n"
    failing = calls + good.replace(
        "    return", "    if next(calls) == 3:\n        raise OSError('no route')\n    return"
    )
    Path("other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("rewards.py").write_text(failing, encoding="utf-8")
    folder = tmp_path / "failed"
    with pytest.raises(RewardError) as raised:
        run({**settings, "output_dir": str(folder)})
    assert str(raised.value).endswith(
        f"raised OSError in line 5: no route; mend the function, then run the same command: it goes on from "
        f"{folder}/checkpoint-2"
    )
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "failed"
    monkeypatch.chdir(tmp_path)
    run({**settings, "output_dir": str(folder)})
    assert same_adapters(folder, tmp_path / "alone")


def test_full_runs_have_a_second_model_for_a_reference(settings: dict[str, Any], tmp_path: Path) -> None:
    run({**settings, "train_mode": "full", "max_steps": 2, "eval_split": None, "output_dir": str(tmp_path / "run")})
    assert decided(tmp_path / "run")["reference"] == "the starting model, loaded a second time"
    assert [line["kl"] > 1e-4 for line in read_metrics(tmp_path / "run")] == [False, True]


def test_training_goes_on_from_a_run(settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    run({**tiny_settings, "train_mode": "lora", "max_steps": 2, "output_dir": str(tmp_path / "sft")})
    start = {**settings, "model_name_or_path": str(tmp_path / "sft"), "max_steps": 2, "eval_split": None}
    run({**start, "output_dir": str(tmp_path / "grpo")})
    assert "frozen copy of the adapter" in decided(tmp_path / "grpo")["reference"]
    assert read_metrics(tmp_path / "grpo")[0]["kl"] == pytest.approx(0, abs=1e-7)
    assert not (tmp_path / "grpo" / "ref").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_generations": 3}, "num_generations: 8 completions are sampled at once (per_device_train_batch_size 4 x"),
        ({"per_device_eval_batch_size": 6}, "per_device_eval_batch_size: 6 completions of an evaluation batch are no"),
        ({"reward_functions": "exact_match", "reward_arguments": {"exact_match": {"column": "x"}}},
         "reward_functions: exact_match reads the column x, which "),
        ({"use_vllm": True}, "use_vllm: the package vllm is not installed; pip install vllm, or drop the setting"),
        ({"dataloader_drop_last": True, "gradient_accumulation_steps": 16},
         "dataloader_drop_last: true leaves no batch of 9 prompts, of which 16 are sampled from at once"),
    ],
)  # fmt: skip
def test_what_is_refused_before_a_model_is_loaded(
    changes: dict[str, Any], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        run({**settings, **changes, "output_dir": str(tmp_path / "run")})
    assert str(raised.value).startswith(message)
    assert not (tmp_path / "run").exists()


#: One seed with the suite; LAMPYRIS_LEARNING_SEEDS=3 runs all that docs/experiments.md has figures of.
SEEDS = range(1, 1 + int(os.environ.get("LAMPYRIS_LEARNING_SEEDS", "1")))
#: Least rise of the mean reward on held-out prompts; docs/experiments.md has what was seen.
LEAST_RISE = 0.15
VOWELS = """
def vowels(completions):
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]
"""


def held_out_rewards(seed: int, tiny_settings: dict[str, Any], folder: Path, **changes: Any) -> tuple[float, float]:
    folder.mkdir()
    words = random.Random(seed)
    rows = [{"prompt": "".join(words.choices("bcdfgklmnpr", k=6)) + ": "} for _ in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "rewards.py").write_text(VOWELS, encoding="utf-8")
    run({
        **tiny_settings, "task_type": "grpo", "train_mode": "full", "train_file": str(folder / "rows.jsonl"),
        "reward_functions": f"{folder}/rewards.py:vowels", "eval_split": 8, "eval_on_start": True,
        "num_generations": 8, "max_completion_length": 16, "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": 1, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "max_steps": 25,
        "seed": seed, "save_strategy": "no", "output_dir": str(folder / "run"), **changes,
    })  # fmt: skip
    means = [line["eval_reward"] for line in read_metrics(folder / "run") if "eval_reward" in line]
    print(f"grpo, seed {seed}: mean reward on held-out prompts {means[0]:.3f} -> {means[-1]:.3f}")
    return means[0], means[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_reward_rises(seed: int, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    before, after = held_out_rewards(seed, tiny_settings, tmp_path / "learns")
    assert after - before > LEAST_RISE


@pytest.mark.slow
def test_the_control_learns_nothing(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    before, after = held_out_rewards(1, tiny_settings, tmp_path / "control", learning_rate=0)
    assert abs(after - before) < LEAST_RISE / 3

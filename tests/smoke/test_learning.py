"""Preference tasks learn, not only run: on pairs that were not trained on the margin rises; at rate zero it must not.

The answers are of words that no training row has; the better one of each pair begins as all better ones do.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from component.artifacts.metrics import read_metrics
from component.pipeline import run

#: One seed with the suite; LAMPYRIS_LEARNING_SEEDS=3 runs all that docs/experiments.md has figures of.
SEEDS = range(1, 1 + int(os.environ.get("LAMPYRIS_LEARNING_SEEDS", "1")))
#: Least rise of the held-out margin of rewards; docs/experiments.md has what was seen.
LEAST_RISE = {"dpo": 2.0, "orpo": 0.1, "cpo": 1.5, "simpo": 3.0, "kto": 2.0, "reward": 2.0}
RATE = 3e-3
#: Rows of LEAST_RISE that are settings of another task.
VARIANTS = {"simpo": {"task_type": "cpo", "loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0}}
LETTERS = "abcdefghijklmnoprstuvw"


def write_rows(path: Path, task: str, seed: int) -> None:
    """80 rows, of which the last 16 are held out by the split's own seed."""
    words = random.Random(seed)
    lines = []
    for index in range(80):
        word, other = ("".join(words.choices(LETTERS, k=5)) for _ in range(2))
        good, bad = f"Surely, {word}", f"Never {other} or {word}"
        if task == "kto":
            is_good = index % 2 == 0
            lines.append({"prompt": f"Say {word}: ", "completion": good if is_good else bad, "label": is_good})
        else:
            lines.append({"prompt": f"Say {word}: ", "chosen": good, "rejected": bad})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def margins(task: str, seed: int, tiny_settings: dict[str, Any], folder: Path, **settings: Any) -> tuple[float, float]:
    """The held-out margin before and after training."""
    folder.mkdir()
    write_rows(folder / "rows.jsonl", task, seed)
    values = {
        **tiny_settings, "task_type": task, "train_mode": "lora", "train_file": str(folder / "rows.jsonl"),
        "eval_split": 16, "eval_on_start": True, "num_train_epochs": 5, "learning_rate": RATE,
        "gradient_accumulation_steps": 1, "per_device_train_batch_size": 8, "seed": seed, "save_strategy": "no",
        "output_dir": str(folder / "run"), **VARIANTS.get(task, {}), **settings,
    }  # fmt: skip
    run(values)
    name = "eval_margin" if task == "reward" else "eval_rewards/margins"
    evaluations = [line for line in read_metrics(folder / "run") if name in line]
    lines = [line[name] for line in evaluations]
    if task == "reward" and values["learning_rate"]:
        print(f"reward, seed {seed}: held-out accuracy {evaluations[-1]['eval_accuracy']:.3f}")
        assert evaluations[-1]["eval_accuracy"] > 0.95
    print(f"{task}, seed {seed}: held-out margin {lines[0]:.4f} -> {lines[-1]:.4f}")
    return lines[0], lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task", LEAST_RISE)
def test_the_held_out_margin_rises(task: str, seed: int, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    before, after = margins(task, seed, tiny_settings, tmp_path / "learns")
    assert after - before > LEAST_RISE[task]


@pytest.mark.slow
@pytest.mark.parametrize("task", LEAST_RISE)
def test_the_control_learns_nothing(task: str, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    before, after = margins(task, 1, tiny_settings, tmp_path / "control", learning_rate=0)
    assert not after - before > LEAST_RISE[task] and after == pytest.approx(before, abs=1e-5)

"""Mixtures of experts: their load-balancing loss is in the log, and as large a part of the loss as the model says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from component.artifacts.metrics import read_metrics
from component.models.tiny import Shape, make_tiny_model
from component.pipeline import run

#: Architectures of experts whose routers are balanced by a loss; glm4_moe_lite's are by a bias that is not trained.
BALANCED_BY_LOSS = ("mixtral", "qwen3_moe", "gpt_oss")
COEFFICIENT = 0.5

Record = Mapping[str, Any]


@pytest.fixture(scope="module")
def first_step(
    tiny_settings: dict[str, Any], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Record]:
    """What is logged of a step and an evaluation, by architecture and coefficient of its load-balancing loss."""
    folder = tmp_path_factory.mktemp("experts")
    models: dict[str, Path] = {}

    def train(architecture: str, coefficient: float) -> Record:
        if architecture not in models:
            models[architecture] = folder / architecture
            shape = Shape(vocab_size=1024)
            make_tiny_model(models[architecture], shape=shape, seed=0, tokenizer=tiny_model, model_type=architecture)
        config = models[architecture] / "config.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**content, "router_aux_loss_coef": coefficient}), encoding="utf-8")
        own = {"model_name_or_path": str(models[architecture]), "train_mode": "lora", "max_steps": 1}
        name = f"{architecture}-{coefficient}"
        run({**tiny_settings, **own, "output_dir": str(folder / name), "learning_rate": 0, "eval_split": 4})
        return {key: value for record in read_metrics(folder / name) for key, value in record.items()}

    return train


@pytest.mark.parametrize("architecture", BALANCED_BY_LOSS)
def test_the_loss_holds_it_as_often_as_the_model_says(architecture: str, first_step: Callable[..., Record]) -> None:
    """Once a step of two micro-batches, and never in an evaluation."""
    without, record = (first_step(architecture, value) for value in (0.0, COEFFICIENT))
    assert record["aux_loss"] > 0.9
    assert record["aux_loss"] == pytest.approx(without["aux_loss"], rel=1e-5)
    assert record["loss"] - without["loss"] == pytest.approx(COEFFICIENT * record["aux_loss"], rel=1e-3)
    assert record["eval_loss"] == pytest.approx(without["eval_loss"], rel=1e-5)


def test_experts_that_a_bias_balances_have_none(first_step: Callable[..., Record]) -> None:
    assert "aux_loss" not in first_step("glm4_moe_lite", 0.0)

"""Recipes beside plain LoRA, end to end: trained, interrupted, resumed, saved, and loaded again as it was in memory."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from component.config.errors import InterruptedRun, UserError
from component.pipeline import run

RECIPES: dict[str, dict[str, Any]] = {
    "lora+ on 4 bit": {"train_mode": "qlora", "loraplus_lr_ratio": 8, "use_rslora": True},
    "lora+ in 8-bit adam": {"train_mode": "lora", "loraplus_lr_ratio": 8, "optim": "adamw_8bit"},
    "dora": {"train_mode": "qlora", "use_dora": True},
    "pissa": {"train_mode": "lora", "init_lora_weights": "pissa_niter_4"},
    "noise on embeddings, warm-up, plateau and decay": {
        "train_mode": "lora",
        "neftune_noise_alpha": 5,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 1},
    },
    "8 bit": {
        "train_mode": "qlora",
        "quantization": "int8",
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    },
    "new tokens": {"train_mode": "qlora", "new_tokens": ["Translate into", "</tool>"], "embedding_learning_rate": 1e-2},
    "embeddings": {
        "train_mode": "lora",
        "modules_to_save": ["embed_tokens"],
        "embedding_learning_rate": 1e-4,
        "layers_to_transform": ["0-1"],
    },
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_interrupted_and_resumed_is_as_left_alone(
    recipe, tiny_settings, conversations, signal_at, trained_metrics, tmp_path: Path
) -> None:
    settings = {**tiny_settings, **recipe, "max_steps": 4, "save_steps": 2, "logging_steps": 1, "learning_rate": 5e-3}
    run({**settings, "output_dir": str(tmp_path / "alone")})
    with signal_at("step 1/4", signal.SIGTERM), pytest.raises(InterruptedRun):
        run({**settings, "output_dir": str(tmp_path / "resumed")})
    run({**settings, "output_dir": str(tmp_path / "resumed")})
    assert trained_metrics(tmp_path / "alone") == trained_metrics(tmp_path / "resumed")
    alone, resumed = (tmp_path / name / "adapter_model.safetensors" for name in ("alone", "resumed"))
    assert alone.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_run_folder_holds_what_was_trained(recipe, tiny_settings, tmp_path: Path) -> None:
    """The loss of the last checkpoint's weights in memory is that of the run folder, loaded for another run."""
    settings = {**tiny_settings, **recipe, "eval_split": 4, "learning_rate": 5e-3}
    first = run({**settings, "max_steps": 3, "output_dir": str(tmp_path / "first")})
    again = {**settings, "model_name_or_path": str(tmp_path / "first"), "eval_on_start": True}
    second = run({**again, "max_steps": 1, "learning_rate": 0.0, "output_dir": str(tmp_path / "second")})
    assert first.metrics["eval_loss"] == pytest.approx(second.metrics["eval_loss"], abs=1e-4)
    assert torch.isfinite(torch.tensor(first.metrics["last_loss"]))


#: Optimizers by their usual names -> the package that they need beside requirements.txt.
OPTIMIZERS = {
    "adamw_torch": None,
    "adafactor": None,
    "adamw_8bit": None,
    "paged_adamw_8bit": None,
    "lion_8bit": None,
    "adamw_torch_8bit": "torchao",
    "adamw_torch_4bit": "torchao",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if package else [])
                                  for name, package in OPTIMIZERS.items()])  # fmt: skip
def test_an_optimizer_learns(name: str, tiny_settings, tmp_path: Path) -> None:
    """All of it is trained, so that there are weights large enough to be kept in 8 or 4 bit."""
    if OPTIMIZERS[name]:
        pytest.importorskip(OPTIMIZERS[name])
    settings = {**tiny_settings, "train_mode": "full", "optim": name, "warmup_steps": 0, "learning_rate": 2e-3}
    result = run({**settings, "max_steps": 3, "save_strategy": "no", "output_dir": str(tmp_path / "run")})
    assert result.metrics["last_loss"] < result.metrics["first_loss"]


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_an_optimizer_whose_package_is_missing(tiny_settings, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        run({**tiny_settings, "train_mode": "lora", "optim": "adamw_torch_4bit", "output_dir": str(tmp_path / "run")})
    assert raised.value.exit_code == 2
    assert str(raised.value).startswith("optim: adamw_torch_4bit cannot be used here: ")
    assert "torchao" in str(raised.value)


def test_a_mixture_of_experts_logs_its_load_balancing_loss(tiny_settings, conversations, tmp_path: Path) -> None:
    """Two of four experts a token, spread evenly, give 2; a random router a little more."""
    from component.artifacts.metrics import read_metrics
    from component.models.tiny import Shape, make_tiny_model

    model = tmp_path / "model"
    make_tiny_model(model, shape=Shape(), seed=0, texts=[conversations], model_type="mixtral")
    settings = {**tiny_settings, "model_name_or_path": str(model), "train_mode": "lora", "max_steps": 2}
    run({**settings, "output_dir": str(tmp_path / "run")})
    records = [record for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert len(records) == 2
    assert all(1.9 < record["aux_loss"] < 3 for record in records)

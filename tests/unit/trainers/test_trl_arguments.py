"""Arguments that all of TRL's trainers get."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from transformers import TrainingArguments

from component.config.load import load_config
from component.runtime.hardware import Hardware
from component.trainers.trl_trainer import build_trl_arguments


def test_checkpointing_is_switched_on_again_with_what_torch_takes(tmp_path: Path) -> None:
    """The loader sees to what is offloaded; torch would hand the argument to the layers."""
    config = load_config(
        {"model_name_or_path": "m", "train_file": "d", "output_dir": "o", "task_type": "dpo",
         "gradient_checkpointing_kwargs": {"use_reentrant": True, "offload": True}}
    )  # fmt: skip
    context = SimpleNamespace(
        output_dir=tmp_path,
        hardware=Hardware("cpu", "test CPU", 2**36, 2**36, None, True, 1),
        precision=SimpleNamespace(bf16=False, fp16=False),
        loader="vanilla",
        has_tiled_mlp=False,
        notices=[],
    )
    arguments = build_trl_arguments(config.training, context, TrainingArguments)
    assert arguments.gradient_checkpointing_kwargs == {"use_reentrant": True}

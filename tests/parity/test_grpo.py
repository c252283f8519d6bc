"""The first step of grpo against TRL used directly: the same completions, rewards, loss and gradients, in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from component.config.load import load_config
from component.pipeline.build_run import build_run
from component.pipeline.prepare import prepare
from component.runtime.seeds import seed_everything

#: Largest difference of a gradient, as a share of the largest gradient. Seen: 0.
TOLERANCE = 1e-5
PROMPT = "Some words: "
REWARDS = """
def vowels(completions, **columns):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]
"""


def fill(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Give the adapter the same values in both models; a new one would be zero, and its reference the same."""
    generator = torch.Generator().manual_seed(0)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for name in sorted(trained):
        with torch.no_grad():
            trained[name].copy_(torch.randn(trained[name].shape, generator=generator) * 0.05)
    return trained


def first_step(trainer: Any) -> tuple[Any, torch.Tensor, dict[str, torch.Tensor]]:
    """Sample eight completions of the one prompt and compute the loss of the first half of them."""
    trained = fill(trainer.model)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    rows = [trainer.train_dataset[0] for _ in range(8)]
    seed_everything(3)
    batch = trainer._prepare_inputs(rows)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return batch, loss.detach(), {name: value.grad for name, value in trained.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "dapo"},
        {"loss_type": "grpo", "beta": 0.2, "importance_sampling_level": "sequence"},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "temperature": 0.8, "top_k": 50},
        {"loss_type": "bnpo", "scale_rewards": "batch", "top_entropy_quantile": 0.5},
        {"loss_type": "cispo", "epsilon_high": 5.0},
    ],
    ids=lambda settings: settings["loss_type"],
)
def test_the_first_step(settings: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    model_name = tiny_settings["model_name_or_path"]
    shared = {"num_generations": 4, "max_completion_length": 12, "per_device_train_batch_size": 4,
              "gradient_accumulation_steps": 2, **settings}  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": PROMPT}) + "\n", encoding="utf-8")
    (tmp_path / "rewards.py").write_text(REWARDS, encoding="utf-8")
    config = load_config(
        {**tiny_settings, "task_type": "grpo", "train_file": str(tmp_path / "rows.jsonl"), "train_mode": "lora",
         "output_dir": str(tmp_path / "run"), "reward_functions": f"{tmp_path}/rewards.py:vowels", **shared}
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    ours = build_run(prepare(config)).trainer

    space: dict[str, Any] = {}
    exec(REWARDS, space)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    base = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32)
    theirs = GRPOTrainer(
        model=base,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"),
        reward_funcs=space["vowels"],
        args=GRPOConfig(
            output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
            **shared,
        ),
        train_dataset=Dataset.from_list([{"prompt": PROMPT}]),
        processing_class=AutoTokenizer.from_pretrained(model_name),
    )  # fmt: skip
    (batch, loss, gradients), (their_batch, their_loss, their_gradients) = first_step(ours), first_step(theirs)
    for name in ("prompt_ids", "completion_ids", "completion_mask", "advantages"):
        torch.testing.assert_close(batch[name], their_batch[name])
    assert batch["completion_ids"].shape[0] == 4 and batch["advantages"].abs().max() > 0.1
    torch.testing.assert_close(loss, their_loss, rtol=TOLERANCE, atol=TOLERANCE)
    assert gradients.keys() == their_gradients.keys() and gradients
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    assert largest > 1e-4, "nothing is compared"
    for name, expected in their_gradients.items():
        assert (gradients[name] - expected).abs().max() <= TOLERANCE * largest, name

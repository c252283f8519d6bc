"""Gradients of the last step, kept for comparison: for benchmarks, since it waits for the device."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StepGradients(TrainerCallback):
    """Copies what the optimizer is about to use; with max_grad_norm 0 that is the gradient of the step's loss.

    Attributes:
        gradients: name of the parameter -> gradient, float32 on the CPU.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy the gradients of trained parameters."""
        assert model is not None
        self.gradients = {
            name: parameter.grad.detach().float().cpu().clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }

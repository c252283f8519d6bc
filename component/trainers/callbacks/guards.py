"""Callbacks that end a run: on a loss that is not finite, and when the user asks for it."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.config.errors import GuardError
from component.trainers.interrupts import Interrupts


class NonFiniteLossCallback(TrainerCallback):
    """Stops the run when a logged loss is NaN or infinite; training on cannot mend the weights."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the training and the evaluation loss.

        Raises:
            GuardError: one of them is not finite.
        """
        for name in ("loss", "eval_loss"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise GuardError(
                    f"{name} is {value} at step {state.global_step}: training has diverged; lower learning_rate, set "
                    "max_grad_norm, or use bf16 instead of fp16; checkpoints before this step are kept"
                )


class InterruptCallback(TrainerCallback):
    """Writes a checkpoint and ends training after the step in which a signal arrived."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer to log, save and stop."""
        if self._interrupts.received:
            control.should_log = True
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control

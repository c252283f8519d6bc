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
            if value is not None:
                check_finite(name, value, state.global_step)


def check_finite(name: str, value: float, step: int) -> None:
    """Stop the run where a value is NaN or infinite.

    Raises:
        GuardError: it is.
    """
    if not math.isfinite(value):
        raise GuardError(
            f"{name} is {value} at step {step}: training has diverged; lower learning_rate, set max_grad_norm, or use "
            "bf16 instead of fp16; checkpoints before this step are kept"
        )


class InterruptCallback(TrainerCallback):
    """Writes a checkpoint and ends training after the step in which a signal arrived; the last step ends it anyway.

    What is logged and evaluated stays as without the signal, so that a resumed run gives the same metrics.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer to save and stop."""
        if self._interrupts.received and state.global_step < state.max_steps:
            self._interrupts.has_stopped_training = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Do what is due at the end of an epoch at a real one alone, and let the checkpoint know of it."""
        if self._interrupts.has_stopped_training:
            is_real_end = float(state.epoch).is_integer()
            control.should_log = control.should_log and is_real_end
            control.should_evaluate = control.should_evaluate and is_real_end
            control.should_save = is_real_end and (control.should_save or control.should_evaluate or control.should_log)
        return control

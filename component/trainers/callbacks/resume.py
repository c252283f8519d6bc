"""What a resumed run needs beside the state that transformers restores, to go on as if it had never stopped."""

from __future__ import annotations

from typing import Any

from loguru import logger
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ResumeCallback(TrainerCallback):
    """Trains nothing where all steps are done, and does not repeat the evaluation before the first one.

    transformers would do one more step when the last one is not the end of an epoch.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """`state` is that of the checkpoint."""
        if state.global_step > 0:
            args.eval_on_start = False
        if state.global_step >= state.max_steps:
            control.should_training_stop = True
        return control


class ResumableEarlyStopping(EarlyStoppingCallback):
    """Early stopping that says so, and whose count of evaluations without improvement goes on after a resume.

    transformers' own restore_callback_states_from_checkpoint would also restore that training was to stop, which is so
    in every checkpoint that an interrupt or the last step wrote.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Take the count from the checkpoint's state; it is 0 in that of a new run."""
        super().on_train_begin(args, state, control, **kwargs)
        attributes = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.early_stopping_patience_counter = attributes["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Say when training ends for want of improvement."""
        super().on_evaluate(args, state, control, **kwargs)
        count = self.early_stopping_patience_counter
        threshold = self.early_stopping_threshold
        least = f" by more than early_stopping_threshold {threshold:g}" if threshold else ""
        is_early = count >= self.early_stopping_patience and state.global_step < state.max_steps
        if is_early and state.is_world_process_zero:
            logger.info(
                f"early stopping after step {state.global_step} of {state.max_steps}: {args.metric_for_best_model} has "
                f"not improved{least} in the last {count} evaluation{'' if count == 1 else 's'}"
            )
        return control

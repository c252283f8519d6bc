"""What every trainer of a run does otherwise than transformers: data order, resume, guards, counting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.training_args import OptimizerNames

from component.config.errors import UserError
from component.config.schema import TrainingSection
from component.data.order import EpochOrderSampler
from component.runtime.distributed import world_size
from component.trainers.callbacks.guards import InterruptCallback, NonFiniteLossCallback, check_finite
from component.trainers.callbacks.metrics import MetricsCallback
from component.trainers.callbacks.order import OrderCallback
from component.trainers.callbacks.progress import ConsoleCallback
from component.trainers.callbacks.resume import ResumableEarlyStopping, ResumeCallback
from component.trainers.data_wait import time_batches
from component.trainers.interrupts import shield_worker
from component.trainers.last_step import LastStep, UpdateCallback, is_due, mark_due
from component.trainers.loss_window import LossWindow
from component.trainers.token_counter import TokenCounter

if TYPE_CHECKING:
    from component.trainers.task import RunContext


#: Names in the states of bitsandbytes' optimizers, as they are in use and as a checkpoint has them.
THEIR_STATES = frozenset({"state1", "__bnb_optimizer_quant_state__"})


class RunTrainer:
    """Stands before a Trainer (transformers' or one of TRL's) in the bases of a task's trainer.

    Nine methods differ from transformers' and say why.

    Args:
        tokens: counts what is trained on.
        lengths: tokens of each training row where rows of similar length are to meet in a step.
    """

    def __init__(self, *args: Any, tokens: TokenCounter, lengths: Sequence[int] | None = None, **kwargs: Any) -> None:
        self._tokens = tokens
        self._last_step: LastStep | None = None
        self._update, self._is_evaluation_due = UpdateCallback(), False
        super().__init__(*args, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows_per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * world_size()
        self._order = EpochOrderSampler(
            len(self.train_dataset), seed=seed, lengths=lengths, rows_per_step=rows_per_step
        )
        self.add_callback(OrderCallback(self._order))
        self.add_callback(self._update)
        for theirs in (PrinterCallback, ProgressCallback):  # ours stands in their place
            self.remove_callback(theirs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Changed: some parameters have learning rates of their own."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new:
            self.args.group_rates.apply(optimizer, self.model if model is None else model)
        return optimizer

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Changed: counts the tokens of the step. The count that the loss is divided by is transformers' own."""
        batches, num_supervised_tokens = super().get_batch_samples(*args, **kwargs)
        self._count_tokens(batches)
        return batches, num_supervised_tokens

    def _count_tokens(self, batches: Sequence[Any]) -> None:
        """Count the micro-batches of a step that begins."""
        self._tokens.add(batches)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrderSampler:
        """Changed: the order of rows depends on seed and epoch alone, not on the state of a global generator."""
        return self._order

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Changed: workers outlive the signal that asks the run for a checkpoint; waiting for batches is timed."""
        loader = super()._get_dataloader(*args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)  # accelerate iterates over what it wraps
        if kwargs.get("is_training"):
            time_batches(inner, self._tokens.add_wait)
        if loader.num_workers > 0:
            inner.worker_init_fn = partial(shield_worker, start=inner.worker_init_fn)
        return loader

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Tensor | float | None, *args: Any, **kwargs: Any
    ) -> None:
        """Changed: a model that is no longer finite is neither saved nor finished, however seldom losses are logged.

        What a checkpoint of this step holds is noted, before an evaluation that may fail and after it.
        """
        self._last_step = LastStep.note(self, self._tokens, self._mark_counts())
        if self.control.should_save or self.state.global_step >= self.state.max_steps:
            check_finite("loss", float(tr_loss), self.state.global_step)
            # With loss scaling, a step whose gradients are not finite is left out.
            if grad_norm is not None and not self.args.fp16:
                check_finite("grad_norm", float(grad_norm), self.state.global_step)
        is_due = self.control.should_log or self.control.should_evaluate
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        if is_due:
            self._last_step = LastStep.note(self, self._tokens, self._mark_counts())

    def _mark_counts(self) -> Callable[[], None] | None:
        """A function that puts back what the trainer of a task counts from step to step; None where it counts nothing.

        For TRL's trainers to change.
        """
        return None

    def save_last_step(self) -> Path | None:
        """Write a checkpoint of the last whole step after a step or an evaluation has failed, unless there is one.

        Returns:
            The checkpoint; None where there was no step, the failure came amid an update of the weights, or other
            processes would have to take part.
        """
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if step == 0 or self._update.is_updating or world_size() > 1:
            return None
        if folder.exists():
            return folder
        if self._last_step is None:  # the step that the run was resumed from, whose checkpoint is gone
            return None
        self.model.zero_grad(set_to_none=True)
        self._last_step.restore(self)
        self._is_evaluation_due = self.control.should_evaluate
        self._save_checkpoint(self.model, trial=None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return folder

    def _save_rng_state(self, output_dir: str) -> None:
        """Changed: adds our own counts to a checkpoint; trainer_state.json, which comes last, makes it complete."""
        super()._save_rng_state(output_dir)
        loss_sum = self.accelerator.reduce(self._tr_loss, reduction="mean").item()
        if self.args.should_save:
            LossWindow(loss_sum, self._globalstep_last_logged).save(Path(output_dir))
            self._tokens.save(Path(output_dir))
            if self._is_evaluation_due:
                mark_due(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Changed: states of another optimizer are refused, with which its first step would fail.

        Raises:
            UserError: run.json names another one than made the checkpoint.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and not self.is_deepspeed_enabled:  # which wraps the optimizer and its states
            check_states(self.optimizer, OptimizerNames(self.args.optim).value, checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Changed: an evaluation that failed at the checkpoint's step is done before training goes on."""
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and is_due(Path(checkpoint)):
            self.control.should_evaluate = True
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model, None, self.state.epoch, None, start_time=time.time()
            )

    def _run_epoch(self, **kwargs: Any) -> None:
        """Changed: a resumed run trains nothing where nothing is left, and knows the losses not yet logged."""
        if self.control.should_training_stop:
            return
        checkpoint = kwargs["resume_from_checkpoint"]
        if checkpoint is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            window = LossWindow.load(Path(checkpoint))
            self._tr_loss += window.loss_sum
            self._globalstep_last_logged = window.last_logged_step
        super()._run_epoch(**kwargs)


def check_states(optimizer: Any, name: str, checkpoint: str) -> None:
    """Hold loaded states to their optimizer: bitsandbytes' have names of their own, and torch loads any.

    Args:
        optimizer: as it is, or as accelerate wraps it.
        name: of it, as `optim` has it.

    Raises:
        UserError: they are of another optimizer.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    is_theirs = type(inner).__module__.startswith("bitsandbytes")
    if any(THEIR_STATES.isdisjoint(state) is is_theirs for state in inner.state.values() if state):
        raise UserError(
            f"optim: {name}: {checkpoint} holds the states of another optimizer; if auto.chosen in run.json was "
            "edited, restore it (train.log says what was chosen), or use a new output_dir"
        )


def run_callbacks(
    training: TrainingSection, context: RunContext, callbacks: Sequence[TrainerCallback] = ()
) -> list[TrainerCallback]:
    """The callbacks of every run, then the task's own."""
    early_stopping = ()
    if training.early_stopping_patience is not None:
        early_stopping = (ResumableEarlyStopping(training.early_stopping_patience, training.early_stopping_threshold),)
    return [
        MetricsCallback(context.output_dir, context.tokens),
        ConsoleCallback(disabled=training.disable_tqdm),
        NonFiniteLossCallback(),
        ResumeCallback(),
        InterruptCallback(context.interrupts),
        *early_stopping,
        *callbacks,
    ]

"""The trainer of next-token tasks (pretrain, sft): transformers' Trainer with exact token means and our data order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from component.config.schema import TrainingSection
from component.data.collators import PackingCollator, PaddingCollator
from component.data.dataset import PackedDataset, PreparedDataset
from component.data.order import EpochOrderSampler
from component.data.packing import pack, packing_fill
from component.runtime.distributed import world_size
from component.trainers.arguments import build_training_arguments
from component.trainers.callbacks.guards import InterruptCallback, NonFiniteLossCallback, check_finite
from component.trainers.callbacks.metrics import MetricsCallback
from component.trainers.callbacks.order import OrderCallback
from component.trainers.callbacks.progress import ConsoleCallback
from component.trainers.callbacks.resume import ResumableEarlyStopping, ResumeCallback
from component.trainers.interrupts import shield_worker
from component.trainers.loss_window import LossWindow
from component.trainers.packing import PackingChoice, choose_packing
from component.trainers.token_counter import TokenCounter

if TYPE_CHECKING:
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel
    from component.trainers.task import RunContext


class CausalLMTrainer(Trainer):
    """Trains on the mean over the supervised tokens of the global batch, evaluates on the mean over those of the set.

    Eight methods differ from transformers' and say why. Training rows may be packs, evaluation rows never are.

    Args:
        lengths: tokens of each training row where rows of similar length are to meet in a step.
    """

    def __init__(self, *args: Any, tokens: TokenCounter, lengths: Sequence[int] | None = None, **kwargs: Any) -> None:
        self._tokens = tokens
        super().__init__(*args, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows_per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * world_size()
        self._order = EpochOrderSampler(
            len(self.train_dataset), seed=seed, lengths=lengths, rows_per_step=rows_per_step
        )
        self.add_callback(OrderCallback(self._order))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Changed: no cache, whatever the model's config says; with one, the samples of a packed row see each other."""
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Changed: counts the tokens of the step. The count that the loss is divided by is transformers' own."""
        batches, num_supervised_tokens = super().get_batch_samples(*args, **kwargs)
        self._tokens.add(batches)
        return batches, num_supervised_tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrderSampler:
        """Changed: the order of rows depends on seed and epoch alone, not on the state of a global generator."""
        return self._order

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Changed: workers outlive the signal that asks the run for a checkpoint."""
        loader = super()._get_dataloader(*args, **kwargs)
        if loader.num_workers > 0:
            inner = getattr(loader, "base_dataloader", loader)  # accelerate iterates over what it wraps
            inner.worker_init_fn = partial(shield_worker, start=inner.worker_init_fn)
        return loader

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Changed: the loop averages losses over rows, which depends on the batch size when rows differ in length.

        Each batch's mean is scaled by its tokens and rows, so that the loop's mean over rows is the mean over the
        supervised tokens of the whole evaluation set. Logits are never kept.
        """
        inputs = self._prepare_inputs(inputs)
        num_tokens = inputs["labels"][..., 1:].ne(-100).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            mean = model(**inputs, use_cache=False)["loss"].detach()
        rows_per_token = len(self.eval_dataset) / self.eval_dataset.num_supervised_tokens
        return mean * num_tokens * rows_per_token / inputs["labels"].shape[0], None, None

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Tensor | float | None, *args: Any, **kwargs: Any
    ) -> None:
        """Changed: a model that is no longer finite is neither saved nor finished, however seldom losses are logged."""
        if self.control.should_save or self.state.global_step >= self.state.max_steps:
            check_finite("loss", float(tr_loss), self.state.global_step)
            # With loss scaling, a step whose gradients are not finite is left out.
            if grad_norm is not None and not self.args.fp16:
                check_finite("grad_norm", float(grad_norm), self.state.global_step)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Changed: adds our own counts to a checkpoint; trainer_state.json, which comes last, makes it complete."""
        super()._save_rng_state(output_dir)
        loss_sum = self.accelerator.reduce(self._tr_loss, reduction="mean").item()
        if self.args.should_save:
            LossWindow(loss_sum, self._globalstep_last_logged).save(Path(output_dir))
            self._tokens.save(Path(output_dir))

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


def build_causal_lm_trainer(
    training: TrainingSection,
    model: LoadedModel,
    data: PreparedData,
    context: RunContext,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> CausalLMTrainer:
    """Build the trainer of a task whose loss is next-token cross-entropy.

    Args:
        callbacks: the task's own, beside those of every run.
    """
    early_stopping = ()
    if training.early_stopping_patience is not None:
        early_stopping = (ResumableEarlyStopping(training.early_stopping_patience, training.early_stopping_threshold),)
    packing, rows = _build_rows(training, model, data, context)
    context.notices.extend(packing.notices())
    context.decided["packing"] = packing.to_dict()
    trainer = CausalLMTrainer(
        model=model.model,
        args=build_training_arguments(training, context),
        train_dataset=rows,
        eval_dataset=PreparedDataset(data.evaluation) if data.evaluation else None,
        data_collator=_Collator(model.tokenizer.pad_token_id),
        processing_class=model.tokenizer,
        tokens=context.tokens,
        lengths=[sample.length for sample in data.train] if training.group_by_length and not packing.got else None,
        callbacks=[
            MetricsCallback(context.output_dir, context.tokens),
            ConsoleCallback(disabled=training.disable_tqdm),
            NonFiniteLossCallback(),
            ResumeCallback(),
            InterruptCallback(context.interrupts),
            *early_stopping,
            *callbacks,
        ],
    )
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    return trainer


class _Collator:
    """Lays packs into one row and pads samples: a trainer has one collator, and evaluation rows are never packs."""

    def __init__(self, pad_token_id: int) -> None:
        self._pack = PackingCollator()
        self._pad = PaddingCollator(pad_token_id)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        is_packed = isinstance(rows[0]["input_ids"][0], list)
        return self._pack(rows) if is_packed else self._pad(rows)


def _build_rows(
    training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> tuple[PackingChoice, PreparedDataset | PackedDataset]:
    """Decide on packing and make the rows to train on: samples, or packs of them.

    Raises:
        UserError: `packing: true`, and the samples of a row would see each other.
    """
    choice = choose_packing(training.packing, model, data.train, compute_dtype=context.precision.compute_dtype)
    if not choice.got:
        return choice, PreparedDataset(data.train)
    lengths = [sample.length for sample in data.train]
    packs = pack(lengths, capacity=training.max_seq_length)
    fill = round(packing_fill(lengths, packs, capacity=training.max_seq_length), 6)
    return replace(choice, num_packs=len(packs), fill=fill), PackedDataset(data.train, packs)

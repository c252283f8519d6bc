"""The trainer of next-token tasks (pretrain, sft): transformers' Trainer with exact token means and our data order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from component.config.schema import TrainingSection
from component.data.collators import PaddingCollator
from component.data.dataset import PreparedDataset
from component.data.order import EpochOrderSampler
from component.trainers.arguments import build_training_arguments
from component.trainers.callbacks.guards import InterruptCallback, NonFiniteLossCallback
from component.trainers.callbacks.metrics import MetricsCallback
from component.trainers.callbacks.order import OrderCallback
from component.trainers.callbacks.progress import ConsoleCallback
from component.trainers.token_counter import TokenCounter

if TYPE_CHECKING:
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel
    from component.trainers.task import RunContext


class CausalLMTrainer(Trainer):
    """Trains on the mean over the supervised tokens of the global batch, evaluates on the mean over those of the set.

    Three methods differ from transformers' and say why.
    """

    def __init__(self, *args: Any, tokens: TokenCounter, **kwargs: Any) -> None:
        self._tokens = tokens
        super().__init__(*args, **kwargs)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._order = EpochOrderSampler(len(self.train_dataset), seed=seed)
        self.add_callback(OrderCallback(self._order))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | int | None]:
        """Changed: counts the tokens of the step. The count that the loss is divided by is transformers' own."""
        batches, num_supervised_tokens = super().get_batch_samples(*args, **kwargs)
        self._tokens.add(batches)
        return batches, num_supervised_tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrderSampler:
        """Changed: the order of rows depends on seed and epoch alone, not on the state of a global generator."""
        return self._order

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
            mean = model(**inputs)["loss"].detach()
        rows_per_token = len(self.eval_dataset) / self.eval_dataset.num_supervised_tokens
        return mean * num_tokens * rows_per_token / inputs["labels"].shape[0], None, None


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
        early_stopping = (EarlyStoppingCallback(training.early_stopping_patience, training.early_stopping_threshold),)
    trainer = CausalLMTrainer(
        model=model.model,
        args=build_training_arguments(training, context),
        train_dataset=PreparedDataset(data.train),
        eval_dataset=PreparedDataset(data.evaluation) if data.evaluation else None,
        data_collator=PaddingCollator(pad_token_id=model.tokenizer.pad_token_id),
        processing_class=model.tokenizer,
        tokens=context.tokens,
        callbacks=[
            MetricsCallback(context.output_dir, context.tokens),
            ConsoleCallback(disabled=training.disable_tqdm),
            NonFiniteLossCallback(),
            InterruptCallback(context.interrupts),
            *early_stopping,
            *callbacks,
        ],
    )
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    return trainer

"""The trainer of next-token tasks (pretrain, sft): transformers' Trainer with exact token means and our data order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.loss.loss_utils import ForCausalLMLoss

from component.config.schema import TrainingSection
from component.data.collators import PackingCollator, PaddingCollator
from component.data.dataset import PackedDataset, PreparedDataset
from component.data.packing import pack, packing_fill
from component.models.padded_rows import needs_mask
from component.trainers.arguments import build_training_arguments
from component.trainers.chunked_loss import ChunkedLoss, predicted_positions
from component.trainers.experts import router_loss, router_part
from component.trainers.liger import choose_liger
from component.trainers.loss_choice import check_smoothing, choose_loss
from component.trainers.packing import PackingChoice, choose_packing
from component.trainers.run_trainer import RunTrainer, run_callbacks

if TYPE_CHECKING:
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel
    from component.trainers.task import RunContext

#: What the collator adds to a batch for the loss in parts; see `predicted_positions`.
POSITIONS = "predicted_positions"


class CausalLMTrainer(RunTrainer, Trainer):
    """Trains on the mean over the supervised tokens of the global batch, evaluates on the mean over those of the set.

    Training rows may be packs, evaluation rows never are.

    Attributes:
        chunked_loss: computes the model's loss in parts; None where the model does so itself.
        needs_mask: the model is told which tokens are padding; see `component.models.padded_rows`.
    """

    chunked_loss: ChunkedLoss | None = None
    needs_mask: bool = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._router_losses: list[Tensor] = []
        super().__init__(*args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Changed: no cache, whatever the model's config says; with one, the samples of a packed row see each other.

        The load-balancing loss of mixtures of experts is kept for the log. It is a part of the loss, as the mean over
        the micro-batches and ranks of a step: transformers adds the whole of it to each.
        """
        inputs = self._aim(inputs)
        loss, outputs = super().compute_loss(model, {**inputs, "use_cache": False}, return_outputs=True, **kwargs)
        balance = router_loss(outputs)
        if balance is not None and self.model.training:
            self._router_losses.append(balance.detach())
            if kwargs.get("num_items_in_batch") is not None and self.model_accepts_loss_kwargs:
                times = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
                loss = loss - router_part(model, outputs) * (times - 1 / self.current_gradient_accumulation_steps)
        return (loss, outputs) if return_outputs else loss

    def _aim(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The model's inputs; the positions to learn from, which the collator found, go to the loss."""
        if self.chunked_loss is not None:
            self.chunked_loss.positions = inputs.get(POSITIONS)
        others = (POSITIONS,) if self.needs_mask else (POSITIONS, "attention_mask")
        return {name: value for name, value in inputs.items() if name not in others}

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Changed: a new step begins."""
        self._router_losses.clear()
        return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Changed: beside the loss stands the load-balancing loss of the step, a mean over its micro-batches.

        Beside that of an evaluation stands the perplexity.
        """
        if "loss" in logs and self._router_losses:
            logs["aux_loss"] = torch.stack(self._router_losses).float().mean().item()
        if "eval_loss" in logs:
            logs["eval_perplexity"] = perplexity(logs["eval_loss"])
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Changed: the loop averages losses over rows, which depends on the batch size when rows differ in length.

        Each batch's mean is scaled by its tokens and rows, so that the loop's mean over rows is the mean over the
        supervised tokens of the whole evaluation set; a load-balancing loss is no part of it. Logits are never kept.
        """
        inputs = self._aim(self._prepare_inputs(inputs))
        if getattr(self.model.config, "output_router_logits", False):
            inputs = {**inputs, "output_router_logits": False}
        num_tokens = inputs["labels"][..., 1:].ne(-100).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            mean = model(**inputs, use_cache=False)["loss"].detach()
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
    packing, rows = _build_rows(training, model, data, context)
    context.notices.extend(packing.notices())
    context.decided["packing"] = packing.to_dict()
    liger = choose_liger(
        training.use_liger_kernel,
        task_type=training.task_type,
        loader=context.loader,
        hardware=context.hardware,
        model_type=model.model.config.model_type,
        is_tiled=context.has_tiled_mlp,
    )
    context.notices.extend(liger.notices())
    context.decided["use_liger_kernel"] = liger.to_dict()
    collator = _Collator(model.tokenizer.pad_token_id)
    trainer = CausalLMTrainer(
        model=model.model,
        args=build_training_arguments(training, context, use_liger_kernel=liger.got),
        train_dataset=rows,
        eval_dataset=PreparedDataset(data.evaluation) if data.evaluation else None,
        data_collator=collator,
        processing_class=model.tokenizer,
        tokens=context.tokens,
        lengths=data.train.lengths.tolist() if training.group_by_length and not packing.got else None,
        callbacks=run_callbacks(training, context, callbacks),
    )
    if context.loader == "vanilla" and not trainer.model_accepts_loss_kwargs:
        # Classes such as Gemma 4's take no count of tokens: the loss of a step would be a mean of micro-batch means.
        trainer.compute_loss_func = next_token_loss
    if context.loader == "vanilla":
        trainer.needs_mask = needs_mask(model.model.config.to_dict(), model.got["attn_implementation"])
    check_smoothing(trainer)
    loss, trainer.chunked_loss = choose_loss(trainer, training, context)
    collator.finds_positions = trainer.chunked_loss is not None
    context.notices.extend(loss.notices())
    context.decided["loss_chunk_tokens"] = loss.to_dict()
    return trainer


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite where that is beyond float64."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def next_token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of each next token, summed and divided by the supervised tokens of the step.

    Args:
        outputs: with logits of shape (B, L, V).
        labels: of shape (B, L), -100 where unsupervised.
        num_items_in_batch: supervised tokens of all micro-batches of the step; None divides by those of this one.
    """
    logits = outputs["logits"]
    return ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch)


class _Collator:
    """Lays packs into one row and pads samples: a trainer has one collator, and evaluation rows are never packs.

    Attributes:
        finds_positions: says which positions are learned from; found on the device, each batch would wait for it.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.finds_positions = False
        self._pack = PackingCollator()
        self._pad = PaddingCollator(pad_token_id)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        is_packed = isinstance(rows[0]["input_ids"][0], list)
        batch = self._pack(rows) if is_packed else self._pad(rows)
        return {**batch, POSITIONS: predicted_positions(batch["labels"])} if self.finds_positions else batch


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
    lengths = data.train.lengths
    packs = pack(lengths, capacity=training.max_seq_length)
    fill = round(packing_fill(lengths, packs, capacity=training.max_seq_length), 6)
    return replace(choice, num_packs=len(packs), fill=fill), PackedDataset(data.train, packs)

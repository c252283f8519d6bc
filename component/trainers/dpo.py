"""The dpo task: direct preference optimization (https://arxiv.org/abs/2305.18290) and its family of losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import trl
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from component.data.pairs import PairCollator, PairDataset
from component.trainers.reference import choose_reference, needs_reference_model
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import TRLTrainer, build_trl_arguments, trainer_inputs

if TYPE_CHECKING:
    from component.config.schema import DPOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel

#: Settings of the section that TRL knows by the same name.
TRL_KEYS = (
    "beta", "loss_type", "loss_weights", "label_smoothing", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef",
    "use_weighting", "discopop_tau", "disable_dropout", "precompute_ref_log_probs",
)  # fmt: skip


class DPOTrainer(TRLTrainer, trl.DPOTrainer):
    """TRL's trainer on prepared pairs."""

    def _precompute_ref_logps(self, dataset: PairDataset, name: str, batch_size: int) -> PairDataset:
        """Changed: computed over our pairs and kept in memory; TRL's go through a table on disk."""
        if "ref_chosen_logps" in dataset.columns:
            return dataset
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        parts = self.reference_parts(loader, f"{len(dataset):,} pairs ({name})")
        chosen, rejected = (torch.cat(side).float().cpu() for side in zip(*parts, strict=True))
        return PairDataset(dataset.samples, {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected})


def build_dpo_arguments(
    dpo: DPOSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed."""
    return build_trl_arguments(
        training,
        context,
        arguments_class,
        **{name: getattr(dpo, name) for name in TRL_KEYS},
        max_length=None,  # the data layer has cut what is too long
        padding_free=False,
        activation_offloading=False,
        sync_ref_model=False,
    )


def build_dpo_trainer(
    dpo: DPOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> DPOTrainer:
    """Build the trainer; run.json says where its reference comes from."""
    reference = choose_reference(dpo, model)
    context.decided["reference"] = reference.description
    return DPOTrainer(
        ref_model=reference.model,
        args=build_dpo_arguments(dpo, training, context, trl.DPOConfig),
        data_collator=PairCollator(model.tokenizer.pad_token_id),
        **trainer_inputs(PairDataset, training, model, data, context),
    )


DPO = Task(
    name="dpo",
    row_kind="preference",
    section="dpo",
    build=build_dpo_trainer,
    needs_reference_model=needs_reference_model,
)

"""The kto task: answers with a label, good or bad, without pairs (https://arxiv.org/abs/2402.01306)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import trl
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from component.data.labelled import LabelledCollator, LabelledDataset
from component.trainers.reference import choose_reference, needs_reference_model
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import TRLTrainer, build_trl_arguments, trainer_inputs

if TYPE_CHECKING:
    from component.config.schema import KTOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel

#: Settings of the section that TRL knows by the same name.
TRL_KEYS = ("beta", "desirable_weight", "undesirable_weight", "disable_dropout", "precompute_ref_log_probs")


class KTOTrainer(TRLTrainer, trl.KTOTrainer):
    """TRL's trainer on prepared answers."""

    def _sizes(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Changed: good and bad answers are counted apart."""
        num_good = int(inputs["label"].sum())
        return {"rows": len(inputs["label"]), "chosen": num_good, "rejected": len(inputs["label"]) - num_good}

    def _weight(self, name: str, batch: Mapping[str, int]) -> int:
        """Changed: a mean over good answers counts by these."""
        return batch.get(name.rpartition("/")[2], batch["rows"])

    def _eval_means(self) -> dict[str, list[float]]:
        """Changed: the margin is that of the means, since no batch need have both kinds."""
        means = super()._eval_means()
        if "rewards/chosen" in means and "rewards/rejected" in means:
            means["rewards/margins"] = [means["rewards/chosen"][0] - means["rewards/rejected"][0]]
        return means

    def _precompute_ref_logps(self, dataset: LabelledDataset, name: str, batch_size: int) -> LabelledDataset:
        """Changed: computed over our answers and kept in memory; TRL's go through a table on disk."""
        if "ref_logps" in dataset.columns:
            return dataset
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        parts = self.reference_parts(loader, f"{len(dataset):,} answers ({name})")
        return LabelledDataset(dataset.samples, {"ref_logps": torch.cat([own for own, _ in parts]).float().cpu()})


def build_kto_arguments(
    kto: KTOSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed."""
    (loss_type,) = kto.loss_type
    return build_trl_arguments(
        training,
        context,
        arguments_class,
        **{name: getattr(kto, name) for name in TRL_KEYS},
        loss_type=loss_type,
        max_length=None,  # the data layer has cut what is too long
        activation_offloading=False,
        sync_ref_model=False,
        train_sampling_strategy="sequential",  # TRL insists, for its own way to pair answers; the sampler is ours
    )


def build_kto_trainer(
    kto: KTOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> KTOTrainer:
    """Build the trainer; run.json says where its reference comes from and how many answers are good."""
    reference = choose_reference(kto, model)
    context.decided["reference"] = reference.description
    num_good = sum(bool(sample.label) for sample in data.train)
    num_bad = len(data.train) - num_good
    context.decided["labels"] = {"true": num_good, "false": num_bad}
    return KTOTrainer(
        ref_model=reference.model,
        args=build_kto_arguments(kto, training, context, trl.KTOConfig),
        data_collator=LabelledCollator(
            model.tokenizer.pad_token_id, max_length=training.max_seq_length, with_mismatched=kto.loss_type == ["kto"]
        ),
        **trainer_inputs(LabelledDataset, training, model, data, context),
    )


KTO = Task(
    name="kto",
    row_kind="labelled",
    section="kto",
    build=build_kto_trainer,
    needs_reference_model=needs_reference_model,
)

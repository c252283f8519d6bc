"""The orpo task: supervised fine-tuning and preferences in one loss, without a reference
(https://arxiv.org/abs/2403.07691)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainingArguments

from component.trainers.task import RunContext, Task
from component.trainers.trl_experimental import (
    ExperimentalTrainer,
    GivenPairDataset,
    SideCollator,
    build_experimental_arguments,
    orpo,
)
from component.trainers.trl_trainer import trainer_inputs

if TYPE_CHECKING:
    from component.config.schema import ORPOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel


class ORPOTrainer(ExperimentalTrainer, orpo.ORPOTrainer):
    """TRL's trainer on prepared pairs."""


def build_orpo_arguments(
    orpo_section: ORPOSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed."""
    return build_experimental_arguments(
        training,
        context,
        arguments_class,
        beta=orpo_section.beta,
        disable_dropout=orpo_section.disable_dropout,
        padding_value=None,
    )


def build_orpo_trainer(
    orpo_section: ORPOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> ORPOTrainer:
    """Build the trainer."""
    return ORPOTrainer(
        args=build_orpo_arguments(orpo_section, training, context, orpo.ORPOConfig),
        data_collator=SideCollator(model.tokenizer.pad_token_id),
        **trainer_inputs(GivenPairDataset, training, model, data, context),
    )


ORPO = Task(name="orpo", row_kind="preference", section="orpo", build=build_orpo_trainer)

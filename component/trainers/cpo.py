"""The cpo task: contrastive preference optimization (https://arxiv.org/abs/2401.08417) and SimPO
(https://arxiv.org/abs/2405.14734), which need no reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainingArguments

from component.trainers.task import RunContext, Task
from component.trainers.trl_experimental import (
    ExperimentalTrainer,
    GivenPairDataset,
    SideCollator,
    build_experimental_arguments,
    cpo,
)
from component.trainers.trl_trainer import trainer_inputs

if TYPE_CHECKING:
    from component.config.schema import CPOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel

#: Settings of the section that TRL knows by the same name.
TRL_KEYS = ("beta", "label_smoothing", "disable_dropout", "cpo_alpha", "simpo_gamma")


class CPOTrainer(ExperimentalTrainer, cpo.CPOTrainer):
    """TRL's trainer on prepared pairs."""


def build_cpo_arguments(
    cpo_section: CPOSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed."""
    (loss_type,) = cpo_section.loss_type
    return build_experimental_arguments(
        training,
        context,
        arguments_class,
        **{name: getattr(cpo_section, name) for name in TRL_KEYS},
        loss_type=loss_type,
        alpha=cpo_section.alphapo_alpha,
    )


def build_cpo_trainer(
    cpo_section: CPOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> CPOTrainer:
    """Build the trainer."""
    return CPOTrainer(
        args=build_cpo_arguments(cpo_section, training, context, cpo.CPOConfig),
        data_collator=SideCollator(model.tokenizer.pad_token_id),
        **trainer_inputs(GivenPairDataset, training, model, data, context),
    )


CPO = Task(name="cpo", row_kind="preference", section="cpo", build=build_cpo_trainer)

"""The reward task: a score head on a language model that ranks the better of two answers higher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trl
from torch import nn
from transformers import TrainingArguments

from component.data.pairs import PairCollator, PairDataset
from component.trainers.arguments import build_training_arguments
from component.trainers.run_trainer import remove_foreign_callbacks, run_callbacks
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import TRLTrainer

if TYPE_CHECKING:
    from component.config.schema import RewardSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel


class RewardTrainer(TRLTrainer, trl.RewardTrainer):
    """TRL's trainer on prepared pairs."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Changed: the model is not given the mask of the answers, which is there for the counts."""
        inputs = {name: value for name, value in inputs.items() if name != "completion_mask"}
        return super().compute_loss(model, inputs, *args, **kwargs)


def build_reward_arguments(
    reward: RewardSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments, every one passed: Unsloth replaces their defaults.

    Args:
        arguments_class: trl's RewardConfig, or what Unsloth has put in its place.
    """
    return build_training_arguments(
        training,
        context,
        arguments_class,
        center_rewards_coefficient=reward.center_rewards_coefficient,
        disable_dropout=reward.disable_dropout,
        max_length=None,  # the data layer has cut what is too long
        activation_offloading=False,
        gradient_checkpointing_kwargs=dict(training.gradient_checkpointing_kwargs),
        remove_unused_columns=False,
    )


def build_reward_trainer(
    reward: RewardSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> RewardTrainer:
    """Build the trainer."""
    trainer = RewardTrainer(
        model=model.model,
        args=build_reward_arguments(reward, training, context, trl.RewardConfig),
        data_collator=PairCollator(model.tokenizer.pad_token_id),
        train_dataset=PairDataset(data.train),
        eval_dataset=PairDataset(data.evaluation) if data.evaluation else None,
        processing_class=model.tokenizer,
        tokens=context.tokens,
        callbacks=run_callbacks(training, context),
    )
    remove_foreign_callbacks(trainer)
    return trainer


REWARD = Task(name="reward", row_kind="preference", section="reward", build=build_reward_trainer)

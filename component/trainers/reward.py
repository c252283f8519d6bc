"""The reward task: a score head on a language model that ranks the better of two answers higher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trl
from torch import nn
from transformers import TrainingArguments

from component.data.pairs import PairCollator, PairDataset
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import TRLTrainer, build_trl_arguments, trainer_inputs

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
    """TRL's arguments for this task, every one passed."""
    return build_trl_arguments(
        training,
        context,
        arguments_class,
        center_rewards_coefficient=reward.center_rewards_coefficient,
        disable_dropout=reward.disable_dropout,
        max_length=None,  # the data layer has cut what is too long
        activation_offloading=False,
    )


def build_reward_trainer(
    reward: RewardSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> RewardTrainer:
    """Build the trainer."""
    return RewardTrainer(
        args=build_reward_arguments(reward, training, context, trl.RewardConfig),
        data_collator=PairCollator(model.tokenizer.pad_token_id),
        **trainer_inputs(PairDataset, training, model, data, context),
    )


REWARD = Task(name="reward", row_kind="preference", section="reward", build=build_reward_trainer)

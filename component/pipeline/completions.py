"""What a run of grpo asks before its weights are loaded: whole groups, rewards that work; other tasks ask nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from component.config.batches import AUTO
from component.config.errors import UserError
from component.config.load import Config
from component.config.schema import GRPOSection, TrainingSection
from component.pipeline.steps import num_rows_per_step
from component.runtime.distributed import world_size
from component.trainers.rewards.load import check_rewards, load_rewards

if TYPE_CHECKING:
    from component.data.prepare import PreparedData


def completions_per_generation(grpo: GRPOSection, training: TrainingSection) -> int:
    """Completions that are sampled at once, over all processes."""
    if grpo.steps_per_generation is None:
        return num_rows_per_step(training)
    return training.per_device_train_batch_size * grpo.steps_per_generation * world_size()


def num_training_rows(config: Config, num_samples: int) -> int:
    """Rows of an epoch as batch sizes count them: samples or packs, and of grpo the completions of its prompts."""
    if config.model.task_type != "grpo":
        return num_samples
    grpo, training = config.grpo, config.training
    at_once = completions_per_generation(grpo, training)
    completions = num_samples * grpo.num_generations
    generations = completions // at_once if training.dataloader_drop_last else -(-completions // at_once)
    return generations * at_once * grpo.num_iterations


def check_completions(config: Config) -> None:
    """Hold batch sizes to whole groups of completions.

    Raises:
        UserError: saying which numbers do not fit.
    """
    if config.model.task_type != "grpo":
        return
    grpo, training = config.grpo, config.training
    at_once = completions_per_generation(grpo, training)
    if at_once % grpo.num_generations:
        asked = training.per_device_train_batch_size
        micro_batch = at_once if asked == AUTO else asked  # which is not chosen yet
        raise UserError(
            f"num_generations: {at_once} completions are sampled at once (per_device_train_batch_size {micro_batch} x "
            f"{at_once // micro_batch}), which are no whole groups of {grpo.num_generations}; "
            "use batch sizes with a multiple of it"
        )
    at_evaluation = (training.per_device_eval_batch_size or grpo.num_generations) * world_size()
    if training.eval_strategy != "no" and at_evaluation % grpo.num_generations:
        raise UserError(
            f"per_device_eval_batch_size: {at_evaluation} completions of an evaluation batch are no whole groups of "
            f"num_generations {grpo.num_generations}; use a multiple of it"
        )


def check_prompts(config: Config, data: PreparedData) -> tuple[str, ...]:
    """Try the rewards on the prompts.

    Returns:
        A notice where prompts at the end of an epoch fill no generation batch.

    Raises:
        UserError: a reward cannot be loaded, or fails, or nothing would be trained.
    """
    if config.model.task_type != "grpo":
        return ()
    rewards = load_rewards(config.grpo)
    for samples in (data.train, data.evaluation):
        check_rewards(rewards, samples or ())
    grpo, training = config.grpo, config.training
    per_batch = completions_per_generation(grpo, training) // grpo.num_generations
    rest = len(data.train) % per_batch
    if not rest:
        return ()
    if not training.dataloader_drop_last:
        return (
            f"grpo: {per_batch} prompts are sampled from at once; {per_batch - rest} of {len(data.train)} are answered "
            "twice in an epoch, to fill up its last batch",
        )
    if rest == len(data.train):
        raise UserError(
            f"dataloader_drop_last: true leaves no batch of {rest} prompts, of which {per_batch} are sampled from at "
            "once; lower the batch sizes, or set dataloader_drop_last: false"
        )
    return (f"grpo: {rest} of {len(data.train)} prompts are left out in each epoch (dataloader_drop_last)",)

"""The grpo task: sampled completions, compared within the group of their prompt (https://arxiv.org/abs/2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trl
from torch import nn
from transformers import TrainingArguments
from trl.trainer.utils import disable_dropout_in_model

from component.data.groups import PromptDataset
from component.trainers.callbacks.completions import CompletionsCallback
from component.trainers.grpo_trainer import GRPOTrainer
from component.trainers.reference import choose_reference
from component.trainers.rewards.load import load_rewards, reward_hashes
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import build_trl_arguments, trainer_inputs

if TYPE_CHECKING:
    from component.config.schema import GRPOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel

#: Settings of the section that TRL knows by the same name.
TRL_KEYS = (
    "num_generations", "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
    "use_vllm", "vllm_gpu_memory_utilization", "num_iterations", "epsilon", "importance_sampling_level",
    "reward_weights", "top_entropy_quantile", "disable_dropout",
)  # fmt: skip


#: Weight of the load-balancing loss of experts, TRL's own.
ROUTER_AUX_LOSS = 0.001


def build_grpo_arguments(
    grpo: GRPOSection,
    training: TrainingSection,
    context: RunContext,
    arguments_class: type[TrainingArguments],
    *,
    beta: float,
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed.

    Args:
        beta: where it is above 0, TRL makes a reference of its own.
    """
    (loss_type,) = grpo.loss_type
    stops = list(context.stop_token_ids)
    arguments = build_trl_arguments(
        training,
        context,
        arguments_class,
        **{name: getattr(grpo, name) for name in TRL_KEYS},
        loss_type=loss_type,
        scale_rewards=grpo.scale_rewards,
        epsilon_high=grpo.epsilon_high or grpo.epsilon,  # Unsloth puts 0.28 for None
        beta=beta,
        steps_per_generation=grpo.steps_per_generation or training.gradient_accumulation_steps,
        generation_batch_size=None,
        generation_kwargs={"stop_token_ids": stops} if grpo.use_vllm else {"eos_token_id": stops, "use_cache": True},
        vllm_mode="colocate",
        vllm_max_model_length=training.max_seq_length,
        multi_objective_aggregation="sum_then_normalize",
        mask_truncated_completions=False,  # ours: TRL takes every stop token but EOS for a cut
        shuffle_dataset=False,  # the order is ours
        log_completions=False,  # they go to completions.jsonl
        delta=None,
        entropy_coef=0.0,
        use_bias_correction_kl=True,
        router_aux_loss_coef=ROUTER_AUX_LOSS if context.loader == "vanilla" else 0.0,  # Unsloth's forward has none
        sync_ref_model=False,
        num_generations_eval=None,
        pad_to_multiple_of=None,
        cache_implementation=None,
    )
    arguments.scale_rewards = grpo.scale_rewards  # Unsloth changes it beside loss_type: dr_grpo
    return arguments


def build_grpo_trainer(
    grpo: GRPOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> GRPOTrainer:
    """Build the trainer; run.json says where its reference comes from and which files the rewards are of."""
    rewards = load_rewards(grpo)
    context.decided["reward_functions"] = reward_hashes(rewards)
    # Of a new adapter TRL would make a copy for the reference: with the adapter off the model is just that.
    trl_copies_adapter = grpo.beta > 0 and model.reference is None and model.continued_adapter is not None
    trainer = GRPOTrainer(
        rewards=rewards,
        stop_token_ids=context.stop_token_ids,
        learns_truncated=not grpo.mask_truncated_completions,
        completions=CompletionsCallback(context.output_dir, grpo.num_logged_completions),
        args=build_grpo_arguments(
            grpo, training, context, trl.GRPOConfig, beta=grpo.beta if trl_copies_adapter else 0.0
        ),
        **trainer_inputs(PromptDataset, training, model, data, context),
    )
    if context.loader != "vanilla" and getattr(model.model.config, "output_router_logits", None):
        context.notices.append("grpo: Unsloth computes no load-balancing loss of experts here; use_unsloth: false does")
    if grpo.beta > 0:
        trainer.beta = grpo.beta
        context.decided["reference"] = choose_reference(grpo, model).description
        if model.reference is not None:
            trainer.ref_model = _prepared(trainer, model.reference, drops_out=not grpo.disable_dropout)
    return trainer


def _prepared(trainer: GRPOTrainer, reference: nn.Module, *, drops_out: bool) -> Any:
    if not drops_out:
        disable_dropout_in_model(reference)
    return trainer.accelerator.prepare_model(reference, evaluation_mode=True)


def needs_reference_model(grpo: GRPOSection, training: TrainingSection) -> bool:
    """Whether a second model is loaded: one that the config names, or the start of a full run."""
    if grpo.beta == 0:
        return False
    return grpo.reference_model_name_or_path is not None or training.train_mode == "full"


GRPO = Task(
    name="grpo",
    row_kind="prompt",
    section="grpo",
    build=build_grpo_trainer,
    needs_reference_model=needs_reference_model,
)

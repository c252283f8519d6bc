"""The section of the grpo task: sampling, rewards, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from component.config.keys import key
from component.config.sections.preference import BetaKeys, DropoutKeys, LossKeys, ReferenceModelKeys
from component.config.sections.shared import CompletionKeys

GRPO = ("grpo",)


@dataclass(frozen=True)
class RewardKeys:
    """What makes a completion good."""

    reward_functions: list[str] = key(
        [],
        "Rewards of a completion: names (exact_match, numeric_answer, format, length, json_schema, code_fence), and "
        'functions of your own ("rewards.py:my_reward"). Their weighted sum counts.',
        tasks=GRPO,
        one_or_many=True,
    )
    reward_arguments: dict[str, Any] = key(
        {},
        "Arguments of named rewards: {exact_match: {column: answer}, format: {pattern: ...}}.",
        tasks=GRPO,
    )
    reward_weights: list[float] | None = key(None, "Weight of each reward.", tasks=GRPO, default_note="1 each")
    scale_rewards: Literal["group", "batch", "none"] = key(
        "group",
        "What an advantage is divided by: the standard deviation of rewards of its prompt, of the whole batch, or "
        "nothing, which does not favour easy and hard prompts (https://arxiv.org/abs/2503.20783).",
        tasks=GRPO,
    )


@dataclass(frozen=True)
class SamplingKeys(CompletionKeys):
    """How completions are sampled."""

    num_generations: int = key(
        8,
        "Completions that are sampled of each prompt and compared. per_device_train_batch_size counts completions: a "
        "generation batch must be a multiple of num_generations.",
        tasks=GRPO,
        minimum=2,
    )
    steps_per_generation: int | None = key(
        None,
        "Micro-batches that are sampled at once.",
        tasks=GRPO,
        above=0,
        default_note="gradient_accumulation_steps: each optimizer step learns from completions of the current model",
    )
    temperature: float = key(1.0, "Temperature of sampling.", tasks=GRPO, above=0)
    top_p: float = key(
        1.0, "Sample from the most likely tokens of this total probability.", tasks=GRPO, above=0, maximum=1
    )
    top_k: int = key(0, "Sample from so many most likely tokens; 0 from all.", tasks=GRPO, minimum=0)
    min_p: float | None = key(
        None,
        "Sample no token that is less likely than this share of the likeliest.",
        tasks=GRPO,
        minimum=0,
        maximum=1,
        default_note="no such limit",
    )
    repetition_penalty: float = key(1.0, "Penalty on tokens that were written before; 1 is none.", tasks=GRPO, above=0)
    use_vllm: bool = key(
        False, "Sample with vLLM in this process, where it is installed; train_mode lora or full.", tasks=GRPO
    )
    vllm_gpu_memory_utilization: float = key(
        0.3, "Share of the GPU's memory that vLLM takes.", tasks=GRPO, above=0, below=1
    )
    num_logged_completions: int = key(
        4,
        "Completions of each logged step that completions.jsonl gets, with their rewards; the log shows the first.",
        tasks=GRPO,
        minimum=0,
        cosmetic=True,
    )


@dataclass(frozen=True)
class GRPOSection(RewardKeys, SamplingKeys, BetaKeys, LossKeys, ReferenceModelKeys, DropoutKeys):
    """Group relative policy optimization (https://arxiv.org/abs/2402.03300) and its family of losses."""

    num_iterations: int = key(1, "Optimizer passes over each batch of completions.", tasks=GRPO, above=0)
    epsilon: float = key(0.2, "How far a probability may move before its gradient is cut off.", tasks=GRPO, above=0)
    epsilon_high: float | None = key(
        None,
        "The same upwards; 0.28 keeps exploration alive (https://arxiv.org/abs/2503.14476).",
        tasks=GRPO,
        above=0,
        default_note="epsilon",
    )
    importance_sampling_level: Literal["token", "sequence"] = key(
        "token", "What a probability ratio is of; sequence is GSPO (https://arxiv.org/abs/2507.18071).", tasks=GRPO
    )
    mask_truncated_completions: bool = key(
        False, "Learn nothing from completions that reached max_completion_length without ending.", tasks=GRPO
    )
    top_entropy_quantile: float = key(
        1.0,
        "Learn from this share of tokens alone, those of highest entropy (https://arxiv.org/abs/2506.01939).",
        tasks=GRPO,
        above=0,
        maximum=1,
    )

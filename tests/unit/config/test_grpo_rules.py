"""Rules over grpo: each impossible combination is refused by `--check`, with the way out."""

from __future__ import annotations

import pytest

from component.config.errors import ConfigError
from component.config.load import Config, load_config

NAMES = "exact_match, numeric_answer, format, length, json_schema, code_fence"
OWN = "or a function of your own as rewards.py:my_reward"
GRPO = ("task_type=grpo", "reward_functions=length")


def load(*overrides: str) -> Config:
    return load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}, overrides)


IMPOSSIBLE: list[tuple[list[str], list[str]]] = [
    (
        ["task_type=grpo"],
        [
            f"task_type: grpo has no reward; set reward_functions to some of {NAMES}, or to a function of your own as "
            "rewards.py:my_reward",
        ],
    ),
    (
        ["task_type=grpo", 'reward_functions=[lenght, "mine.py:"]'],
        [
            f'reward_functions: there is no reward "lenght"; did you mean length? use {NAMES}, {OWN}',
            f'reward_functions: there is no reward "mine.py:"; use {NAMES}, {OWN}',
        ],
    ),
    (
        ["task_type=grpo", "reward_functions=[length, length]", "reward_weights=[1]", "reward_arguments={format: {}}"],
        [
            "reward_functions: a reward is named twice; name each once, and use reward_weights",
            "reward_weights: reward_weights has 1 numbers, reward_functions 2 names; write one number for each reward",
            "reward_arguments: format is not among the reward_functions; add it there, or drop it",
        ],
    ),
    (
        [*GRPO, "max_completion_length=2047"],
        [
            "max_completion_length: max_completion_length 2047 leaves a prompt no room in max_seq_length 2048; "
            "lower it, or raise max_seq_length",
        ],
    ),
    (
        [*GRPO, "loss_type=cispo"],
        [
            "loss_type: cispo caps the weight of a token at epsilon_high itself, which is 0.2; "
            "set epsilon_high: 5.0 (4 to 8 are usual)"
        ],
    ),
    (
        [*GRPO, "reward_functions=[length, format]", "reward_weights=[0, 0]"],
        ["reward_weights: got [0.0, 0.0]; use numbers up to 1e+06, not all of them 0"],
    ),
    (
        ["metric_for_best_model=eval_reward"],
        ["metric_for_best_model: sft measures no eval_reward; use eval_loss, loss, eval_perplexity"],
    ),
    ([*GRPO, "loss_type=[dapo, grpo]"], ["loss_type: grpo has one loss, not 2; keep one"]),
    (
        [*GRPO, "importance_sampling_level=sequence"],
        [
            "importance_sampling_level: dapo adds up tokens, and would weigh the ratio of a sequence by its length; "
            "use loss_type: grpo, as GSPO does, or importance_sampling_level: token",
        ],
    ),
    (
        [*GRPO, "loss_type=luspo"],
        [
            "loss_type: luspo weighs sequences, and importance_sampling_level is token; "
            "set importance_sampling_level: sequence",
        ],
    ),
    (
        [*GRPO, "use_liger_kernel=true", "use_vllm=true", "use_unsloth=require"],
        [
            "use_liger_kernel: Liger's fused loss of grpo is not offered: it knows neither our reference nor "
            "entropies; drop use_liger_kernel",
            "use_vllm: vLLM is handed 16-bit weights after each step, and those of train_mode qlora are quantized; "
            "use train_mode: lora, or drop use_vllm",
            "use_vllm: use_vllm is offered with the vanilla loader; set use_unsloth: false, or drop use_vllm",
        ],
    ),
    (
        [*GRPO, "use_vllm=true", "train_mode=lora", "fp8_base=true"],
        [
            "use_vllm: vLLM is handed 16-bit weights after each step, and those of fp8_base go with scales of their "
            "own; drop one of them",
        ],
    ),
]


@pytest.mark.parametrize(("overrides", "messages"), IMPOSSIBLE, ids=[" ".join(pair[0]) for pair in IMPOSSIBLE])
def test_an_impossible_combination(overrides: list[str], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(*overrides)
    assert sorted(error.value.messages) == sorted(f"command line: {message}" for message in messages)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss_type=grpo", "importance_sampling_level=sequence"],
        ["loss_type=luspo", "importance_sampling_level=sequence"],
        ["use_vllm=true", "train_mode=lora"],
        ["reward_functions=[format, rewards.py:mine]", "reward_weights=[0.5, 1]"],
    ],
)
def test_what_goes_together(overrides: list[str]) -> None:
    assert load(*GRPO, *overrides).notices == ()


def test_defaults() -> None:
    config = load(*GRPO)
    assert (config.grpo.beta, config.grpo.loss_type, config.training.learning_rate) == (0.0, ["dapo"], 5e-6)


def test_keys_that_nothing_reads() -> None:
    notices = [str(notice) for notice in load(*GRPO, "reference_model_name_or_path=other").notices]
    assert notices == ["command line: reference_model_name_or_path: ignored; only read with beta above 0"]

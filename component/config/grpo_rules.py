"""Rules over grpo: rewards that exist, completions that fit, losses that can be had."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from component.config.errors import Problem
from component.config.merged import Merged, Rule
from component.registry import REWARDS

#: A function of the user's own: rewards.py:my_reward.
OWN_FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*")
#: Rewards are summed in float32.
MAX_WEIGHT = 1e6
#: Losses that add up tokens, and would weigh the one ratio of a sequence by its length.
TOKEN_LOSSES = ("dapo", "bnpo", "dr_grpo", "cispo", "vespo")


def check_rewards(merged: Merged) -> Iterator[Problem]:
    """There are rewards, each is known and named once, and weights and arguments belong to them."""
    if merged["task_type"] != "grpo":
        return
    names = merged["reward_functions"]
    place = merged.places.get("reward_functions", merged.places.get("task_type"))
    known = ", ".join(REWARDS.names())
    if not names:
        fix = f"set reward_functions to some of {known}, or to a function of your own as rewards.py:my_reward"
        yield merged.clash("reward_functions", "task_type", "grpo has no reward", fix)
        return
    for name in names:
        if name in REWARDS.names() or OWN_FUNCTION.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, REWARDS.names(), n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}? " if near else ""
        fix = f"{hint}use {known}, or a function of your own as rewards.py:my_reward"
        yield Problem(place, "reward_functions", f'there is no reward "{name}"', fix)
    if len(set(names)) < len(names):
        yield Problem(place, "reward_functions", "a reward is named twice", "name each once, and use reward_weights")
    weights = merged["reward_weights"]
    if weights is not None and len(weights) != len(names):
        what = f"reward_weights has {len(weights)} numbers, reward_functions {len(names)} names"
        yield merged.clash("reward_weights", "reward_functions", what, "write one number for each reward")
    if weights is not None and (not any(weights) or max(map(abs, weights)) > MAX_WEIGHT):
        fix = f"use numbers up to {MAX_WEIGHT:g}, not all of them 0"
        yield Problem(merged.places["reward_weights"], "reward_weights", f"got {weights}", fix)
    for name in merged["reward_arguments"]:
        if name not in names:
            what = f"{name} is not among the reward_functions"
            yield merged.clash("reward_arguments", "reward_functions", what, "add it there, or drop it")


def check_lengths(merged: Merged) -> Iterator[Problem]:
    """A prompt has room beside the completion."""
    if merged["task_type"] != "grpo":
        return
    whole, completion = merged["max_seq_length"], merged["max_completion_length"]
    if completion > whole - 2:
        what = f"max_completion_length {completion} leaves a prompt no room in max_seq_length {whole}"
        yield merged.clash("max_completion_length", "max_seq_length", what, "lower it, or raise max_seq_length")


def check_ratios(merged: Merged) -> Iterator[Problem]:
    """A loss and the level of its probability ratios fit."""
    if merged["task_type"] != "grpo" or len(merged["loss_type"] or ()) > 1:
        return
    (loss,), level = merged["loss_type"] or ("dapo",), merged["importance_sampling_level"]
    key = "importance_sampling_level"
    if level == "sequence" and loss in TOKEN_LOSSES:
        what = f"{loss} adds up tokens, and would weigh the ratio of a sequence by its length"
        fix = "use loss_type: grpo, as GSPO does, or importance_sampling_level: token"
        yield merged.clash(key, "loss_type", what, fix)
    cap = merged["epsilon_high"]
    if loss == "cispo" and (cap is None or cap < 1):
        what = f"cispo caps the weight of a token at epsilon_high itself, which is {cap or merged['epsilon']:g}"
        yield merged.clash("epsilon_high", "loss_type", what, "set epsilon_high: 5.0 (4 to 8 are usual)")
    if level == "token" and loss == "luspo":
        what = "luspo weighs sequences, and importance_sampling_level is token"
        yield merged.clash(key, "loss_type", what, "set importance_sampling_level: sequence")


def check_sampling(merged: Merged) -> Iterator[Problem]:
    """Completions can be sampled as asked, and the loss be computed."""
    if merged["task_type"] != "grpo":
        return
    if merged["use_liger_kernel"] is True:
        what = "Liger's fused loss of grpo is not offered: it knows neither our reference nor entropies"
        yield merged.clash("use_liger_kernel", "task_type", what, "drop use_liger_kernel")
    if not merged["use_vllm"]:
        return
    if merged["train_mode"] == "qlora":
        what = "vLLM is handed 16-bit weights after each step, and those of train_mode qlora are quantized"
        yield merged.clash("use_vllm", "train_mode", what, "use train_mode: lora, or drop use_vllm")
    if merged["fp8_base"]:
        what = "vLLM is handed 16-bit weights after each step, and those of fp8_base go with scales of their own"
        yield merged.clash("use_vllm", "fp8_base", what, "drop one of them")
    if merged["use_unsloth"] == "require":
        what = "use_vllm is offered with the vanilla loader"
        yield merged.clash("use_vllm", "use_unsloth", what, "set use_unsloth: false, or drop use_vllm")


GRPO_RULES: tuple[Rule, ...] = (check_rewards, check_lengths, check_ratios, check_sampling)

"""Hints that the config alone gives rise to: one small function for each, in a table.

A hint is for what works and is seldom meant. To add one, write a function that yields `Hint`s and name it in `HINTS`,
and its key in `HINT_KEYS`; numbers belong into `component.config.usual`, which the guide is made from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from component.config.hint import Hint, say_rate
from component.config.keys import ADAPTER_MODES, LANGUAGE_MODEL_TASKS
from component.config.usual import (
    ADAPTER_SCALE,
    BETAS,
    BETAS_OF_MEANS,
    LEARNING_RATES,
    MAX_EPOCHS,
    MAX_WARMUP_SHARE,
    MIN_GENERATIONS,
    MIN_KTO_BATCH,
    RSLORA_SCALE,
)

if TYPE_CHECKING:
    from component.config.load import Config

HintRule = Callable[["Config"], Iterator[Hint]]

#: Linear layers of attention, by the names that architectures give them.
ATTENTION_LAYERS = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "W_pack", "c_attn", "Wqkv"}
)


def hint_at(config: Config, key: str, what: str, fix: str) -> Hint:
    """A hint at the place where a key was set."""
    return Hint(key, what, fix, config.places.get(key))


def divide(over: float, under: float) -> float:
    """A quotient of any two numbers above 0, for integers have no end and a hint must never end a check."""
    try:
        return over / under
    except OverflowError:  # beyond a float: the quotient itself, or one of the two
        return math.inf if over > under else 0.0


def _is_adam(optimizer: str) -> bool:
    return optimizer == "auto" or "adam" in optimizer


def hint_learning_rate(config: Config) -> Iterator[Hint]:
    """Far from what the task and the mode are trained with."""
    task, mode, rate = config.model.task_type, config.model.train_mode, config.training.learning_rate
    if task not in LEARNING_RATES or rate is None or not _is_adam(config.training.optim):
        return
    rates = LEARNING_RATES[task].of(mode)
    if rates.low <= rate <= rates.high:
        return
    is_low = rate < rates.low
    what = f"{say_rate(rate)} is far {'below' if is_low else 'above'} what {task} with {mode} is trained with"
    sft = LEARNING_RATES["sft"].of(mode)
    if not is_low and task not in LANGUAGE_MODEL_TASKS and sft.low <= rate <= sft.high:
        what += ": it is a rate of sft"
    elif is_low and mode in ADAPTER_MODES and rate >= LEARNING_RATES[task].full.low:
        what += "; adapters want about ten times the rate of full training"
    yield hint_at(config, "learning_rate", what, f"{say_rate(rates.usual)} is usual")


def hint_epochs(config: Config) -> Iterator[Hint]:
    """So many passes that answers are learned by heart."""
    training = config.training
    is_guarded = training.early_stopping_patience is not None or training.load_best_model_at_end
    if config.model.task_type == "pretrain" or training.max_steps > 0 or is_guarded:
        return
    if training.num_train_epochs > MAX_EPOCHS:
        what = f"after {MAX_EPOCHS} of {training.num_train_epochs:g} passes answers are mostly learned by heart"
        fix = f"use 1 to {MAX_EPOCHS}, or watch eval_loss with early_stopping_patience"
        yield hint_at(config, "num_train_epochs", what, fix)


def hint_adapter_scale(config: Config) -> Iterator[Hint]:
    """An adapter that counts far more or less than is usual beside its base."""
    adapter = config.adapter
    if config.model.train_mode not in ADAPTER_MODES:
        return
    if adapter.use_rslora:
        scale = math.sqrt(divide(adapter.lora_alpha**2, adapter.lora_rank))
    else:
        scale = divide(adapter.lora_alpha, adapter.lora_rank)
    usual = RSLORA_SCALE if adapter.use_rslora else ADAPTER_SCALE
    if usual.low <= scale <= usual.high:
        return
    root = "sqrt(lora_rank)" if adapter.use_rslora else "lora_rank"
    what = f"lora_alpha / {root} multiplies the adapter's output by {scale:.3g}"
    fix = f"{usual.low:g} to {usual.high:g} is usual"
    if adapter.use_rslora and scale > usual.high:
        fix += "; with use_rslora an alpha need not grow with the rank, 16 does for most"
    yield hint_at(config, "lora_alpha", what, fix)


def hint_attention_only(config: Config) -> Iterator[Hint]:
    """Adapters on attention alone."""
    modules = set(config.adapter.lora_target_modules)
    if config.model.train_mode in ADAPTER_MODES and modules and modules <= ATTENTION_LAYERS:
        what = "adapters on attention alone learn less than those on all linear layers, at any rank"
        yield hint_at(config, "lora_target_modules", what, "use all-linear")


def hint_dora(config: Config) -> Iterator[Hint]:
    """An adapter that takes away what Unsloth is asked for."""
    if config.adapter.use_dora and config.model.use_unsloth is not False and config.model.train_mode in ADAPTER_MODES:
        what = "DoRA loses Unsloth's fused LoRA kernels, and with them most of its speed"
        yield hint_at(config, "use_dora", what, "drop it, or set use_unsloth: false")


def hint_dropout(config: Config) -> Iterator[Hint]:
    """A dropout that the task switches off again."""
    section = getattr(config, config.model.task_type, None)
    if config.model.train_mode not in ADAPTER_MODES or not config.adapter.lora_dropout:
        return
    if getattr(section, "disable_dropout", False):
        what = f"{config.adapter.lora_dropout:g} has no effect: {config.model.task_type} trains without dropout"
        yield hint_at(config, "lora_dropout", what, "drop it, or set disable_dropout: false")


def hint_warmup(config: Config) -> Iterator[Hint]:
    """A warm-up that takes too much of a run whose length the config says."""
    training = config.training
    if training.lr_scheduler_type == "constant" or training.warmup_steps >= 1 and training.max_steps <= 0:
        return
    if training.warmup_steps >= max(1, training.max_steps):
        yield too_long_a_warmup(config, training.max_steps)
        return
    share = divide(training.warmup_steps, training.max_steps if training.warmup_steps >= 1 else 1)
    if share > MAX_WARMUP_SHARE:
        what = f"{share:.0%} of the run is a warm-up, below its learning rate"
        yield hint_at(config, "warmup_steps", what, "use a share such as 0.03")


def too_long_a_warmup(config: Config, num_steps: int) -> Hint:
    """The hint for a run that ends before its learning rate is reached."""
    what = (
        f"the run of {num_steps:,} steps ends within its warm-up of {config.training.warmup_steps:,g}, below its "
        "learning rate"
    )
    return hint_at(config, "warmup_steps", what, "use a share such as 0.03")


def hint_kto_batch(config: Config) -> Iterator[Hint]:
    """Too few answers for what the loss estimates from them."""
    size = config.training.per_device_train_batch_size
    if config.model.task_type == "kto" and config.kto.loss_type == ["kto"] and size != "auto" and size < MIN_KTO_BATCH:
        what = f"kto estimates a divergence from the answers of a micro-batch, and {size} say little"
        yield hint_at(config, "per_device_train_batch_size", what, f"use {MIN_KTO_BATCH} or more")


def hint_generations(config: Config) -> Iterator[Hint]:
    """Groups in which completions have too few others to be better than."""
    number = config.grpo.num_generations
    if config.model.task_type == "grpo" and number < MIN_GENERATIONS:
        what = f"a completion is compared with {number - 1} other{'s' * (number > 2)}, and often all are equally good"
        yield hint_at(config, "num_generations", what, f"use {MIN_GENERATIONS} or more, 8 is usual")


def hint_same_files(config: Config) -> Iterator[Hint]:
    """Files that are trained and evaluated on."""
    known = {os.path.normpath(file) for file in config.data.train_file}
    same = [file for file in config.data.eval_file or () if os.path.normpath(file) in known]
    if same:
        what = f"{same[0]} is in train_file too, so eval_loss says how well it was learned by heart"
        yield hint_at(config, "eval_file", what, "name rows that are not trained on, or use eval_split: 0.05")


def hint_best_model(config: Config) -> Iterator[Hint]:
    """Several evaluations whose best one nothing keeps."""
    training = config.training
    repeats = training.num_train_epochs >= 2 and training.max_steps <= 0
    if config.values["eval_strategy"] == "no" or not repeats or training.save_strategy == "no":
        return
    if not training.load_best_model_at_end and training.early_stopping_patience is None:
        what = "evaluation runs, and the last weights are kept whatever it says"
        fix = f"set load_best_model_at_end: true with save_strategy: {config.values['eval_strategy']}"
        yield hint_at(config, "load_best_model_at_end", what, fix)


def hint_beta(config: Config) -> Iterator[Hint]:
    """A pull towards the reference that leaves nothing to learn, or nothing to hold on to."""
    task, beta = config.model.task_type, config.values["beta"]
    if task not in BETAS:
        return
    of_means = next((name for name in config.values["loss_type"] or () if name in BETAS_OF_MEANS), None)
    usual = BETAS[task] if of_means is None else BETAS_OF_MEANS[of_means]
    if not usual.low <= beta <= usual.high:
        what = f"{beta:g} is far {'below' if beta < usual.low else 'above'} what {of_means or task} is used with"
        yield hint_at(config, "beta", what, f"{usual.usual:g} is usual")


def hint_clipping(config: Config) -> Iterator[Hint]:
    """Gradients of any size are taken."""
    if config.training.max_grad_norm == 0:
        what = "gradients are not clipped, so that one odd batch can undo the run"
        yield hint_at(config, "max_grad_norm", what, "1.0 is usual")


HINTS: tuple[HintRule, ...] = (
    hint_learning_rate,
    hint_epochs,
    hint_adapter_scale,
    hint_attention_only,
    hint_dora,
    hint_dropout,
    hint_warmup,
    hint_kto_batch,
    hint_generations,
    hint_same_files,
    hint_best_model,
    hint_beta,
    hint_clipping,
)

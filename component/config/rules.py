"""Rules over several keys: impossible combinations are problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date

from component.config.adapter_rules import ADAPTER_RULES
from component.config.batches import BATCH_RULES
from component.config.choices import METRICS, WITHOUT_ARGUMENTS
from component.config.errors import Problem
from component.config.grpo_rules import GRPO_RULES
from component.config.keys import SHIPPED_TASKS
from component.config.loss_rules import LOSS_RULES
from component.config.memory_rules import MEMORY_RULES
from component.config.merged import Merged, RefusedValueError, Rule
from component.config.nodes import excerpt
from component.config.resolve import resolve_eval_strategy
from component.config.token_rules import TOKEN_RULES
from component.registry import TASK_ROW_KINDS, TRUNCATIONS

#: A reference to a variable, without a default that would be the secret itself.
ENVIRONMENT_ONLY = re.compile(r"\$\{\s*oc\.env\s*:[^,${}]*(,\s*null\s*)?\}")


def check_precision(merged: Merged) -> Iterator[Problem]:
    """fp16 and bf16 exclude each other, and float16 weights cannot be trained in full."""
    if merged["fp16"] and merged["bf16"]:
        yield merged.clash("fp16", "bf16", "fp16 and bf16 are both true", "keep one of them, or neither for auto")
    if merged["dtype"] == "float16" and merged["train_mode"] == "full":
        what = "float16 weights cannot be trained in full (train_mode: full): their small updates are lost"
        yield merged.clash("dtype", "train_mode", what, "use dtype: auto or bfloat16, or train_mode: lora")
    if merged["dtype"] == "float32" and merged["fp16"] and merged["train_mode"] == "qlora":
        yield merged.clash("dtype", "fp16", "dtype float32 and fp16: true ask for two formats", "drop one of them")


def check_evaluation(merged: Merged) -> Iterator[Problem]:
    """What needs evaluation has evaluation data, and a schedule that fits."""
    if merged["eval_file"] and merged["eval_split"]:
        yield merged.clash("eval_file", "eval_split", "eval_file and eval_split are both set", "keep one of them")
    split = merged["eval_split"]
    if split is not None and split >= 1 and split != int(split):
        fix = "use a share below 1 such as 0.05, or a whole number of rows"
        yield Problem(merged.places["eval_split"], "eval_split", f"got {split:g}", fix)
    has_data = bool(merged["eval_file"] or merged["eval_split"])
    fix = "set eval_file or eval_split"
    if merged["eval_strategy"] not in (None, "no") and not has_data:
        what = f"{merged['eval_strategy']} without evaluation data"
        yield Problem(merged.places["eval_strategy"], "eval_strategy", what, fix)
    evaluates = has_data and merged["eval_strategy"] != "no"
    wishes = {
        "load_best_model_at_end": merged["load_best_model_at_end"],
        "early_stopping_patience": merged["early_stopping_patience"] is not None,
        "num_eval_generations": merged["num_eval_generations"] > 0,
        "eval_on_start": merged["eval_on_start"],
        "save_strategy": merged["save_strategy"] == "best",
    }
    for key, wanted in wishes.items():
        if wanted and not evaluates:
            yield Problem(merged.places[key], key, "needs evaluation, and none will run", fix)
    if evaluates and (merged["load_best_model_at_end"] or merged["early_stopping_patience"]):
        yield from _check_best_model(merged)


def _check_best_model(merged: Merged) -> Iterator[Problem]:
    key = "load_best_model_at_end" if merged["load_best_model_at_end"] else "early_stopping_patience"
    evaluation, saving = resolve_eval_strategy(merged.values), merged["save_strategy"]
    if saving == "best" or key == "early_stopping_patience":
        return
    if evaluation != saving:
        what = f"{key} needs a checkpoint at each evaluation: eval_strategy {evaluation}, save_strategy {saving}"
        yield merged.clash(key, "save_strategy", what, f"set save_strategy: {evaluation}")
    elif evaluation == "steps" and not _is_multiple(merged["save_steps"], merged["eval_steps"]):
        what = f"save_steps {merged['save_steps']:g} is not a multiple of eval_steps {merged['eval_steps']:g}"
        yield merged.clash("save_steps", "eval_steps", what, "make it one, so that every checkpoint has been evaluated")


def _is_multiple(steps: float, of: float | None) -> bool:
    """Whether one count of steps, or one share of them, is a multiple of another; nothing to say about None."""
    ratio = steps / of if of else 1.0
    return not of or ((steps < 1) == (of < 1) and ratio > 0.5 and abs(ratio - round(ratio)) < 1e-9)


def check_metric(merged: Merged) -> Iterator[Problem]:
    """The task measures what decides which checkpoint is best."""
    metric, task = merged["metric_for_best_model"], merged["task_type"]
    tasks = METRICS.get(metric)
    if tasks is not None and task in SHIPPED_TASKS and task not in tasks:
        own = [name for name, of_tasks in METRICS.items() if of_tasks is None or task in of_tasks]
        what = f"{task} measures no {metric}"
        yield merged.clash("metric_for_best_model", "task_type", what, f"use {', '.join(own)}")


def check_supervision(merged: Merged) -> Iterator[Problem]:
    """What is learned is said once."""
    if merged["train_on_prompt"] and merged["train_on"] == "last":
        what = "train_on_prompt learns the whole row, train_on: last only its last answer"
        yield merged.clash("train_on_prompt", "train_on", what, "drop one of them")


def check_truncation(merged: Merged) -> Iterator[Problem]:
    """Rows of every kind can be cut, but not in every way."""
    task, truncation = merged["task_type"], merged["truncation"]
    choices = TRUNCATIONS.get(TASK_ROW_KINDS.get(task, ""))
    if choices and truncation not in choices:
        what = f"truncation {truncation} does not fit the rows of {task}"
        yield merged.clash("truncation", "task_type", what, f"use {', '.join(choices[:-1])} or {choices[-1]}")


def check_mixture(merged: Merged) -> Iterator[Problem]:
    """Weights and limits of entries are positive, one an entry."""
    entries = merged["train_file"]
    for key in ("mixture_weights", "max_samples"):
        values = merged[key]
        if not isinstance(values, list) or not isinstance(entries, list):
            continue
        place = merged.places[key]
        if any(value <= 0 for value in values):
            yield Problem(place, key, f"got {min(values):g}", "use numbers above 0, and leave out what has no share")
        if len(values) != len(entries):
            what = f"{key} has {len(values)} numbers, train_file has {len(entries)} entries"
            yield merged.clash(key, "train_file", what, "write one number for each entry")


def check_steps(merged: Merged) -> Iterator[Problem]:
    """max_steps is -1 or positive; counts of steps are whole or shares below 1."""
    if merged["max_steps"] == 0:
        yield Problem(merged.places["max_steps"], "max_steps", "got 0", "use -1 or a positive number of steps")
    for key in ("logging_steps", "save_steps", "eval_steps", "warmup_steps"):
        value = merged[key]
        if value is not None and value >= 1 and value != int(value):
            fix = "use a whole number of steps, or a share below 1"
            yield Problem(merged.places[key], key, f"got {value:g}", fix)
    if merged["eval_strategy"] == "steps" and merged["eval_steps"] is None:
        yield Problem(
            merged.places["eval_strategy"], "eval_strategy", "steps, but eval_steps is not set", "set eval_steps"
        )
    if not merged["dataloader_num_workers"]:
        for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if merged[key]:
                what = f"{key} without dataloader_num_workers"
                yield merged.clash(key, "dataloader_num_workers", what, "set dataloader_num_workers to 1 or more")


def check_optimizer_arguments(merged: Merged) -> Iterator[Problem]:
    """Arguments of an optimizer can be read, by one that takes some."""
    key, text = "optim_args", merged["optim_args"]
    if text is None:
        return
    if merged["optim"] in WITHOUT_ARGUMENTS:
        what = f"optim {merged['optim']} takes none of optim_args"
        yield merged.clash(key, "optim", what, f"drop {key}; weight_decay and adam_* are keys of their own")
    elif not all(re.fullmatch(r"[^=]+=[^=]+", part) for part in text.split(",")):
        fix = "write NAME=VALUE, with commas between several, as in momentum=0.9,nesterov=true"
        yield Problem(merged.places[key], key, f'got "{excerpt(text)}"', fix)


def check_scale_out(merged: Merged) -> Iterator[Problem]:
    """One scheme of scale-out at a time."""
    if merged["deepspeed"] and merged["fsdp"]:
        yield merged.clash("deepspeed", "fsdp", "deepspeed and fsdp are both set", "keep one of them")
    for key in ("deepspeed", "fsdp"):
        if merged[key] and merged["use_unsloth"] == "require":
            what = f"{key} with use_unsloth: require, and Unsloth trains on one GPU"
            yield merged.clash(key, "use_unsloth", what, f"drop {key} or set use_unsloth: false")


def check_loader(merged: Merged) -> Iterator[Problem]:
    """A loader is named in one way."""
    if merged["model_loader"] and merged["use_unsloth"] is not False:
        use_unsloth = str(merged["use_unsloth"]).lower()
        what = f"model_loader {merged['model_loader']} and use_unsloth {use_unsloth} both choose a loader"
        yield merged.clash("model_loader", "use_unsloth", what, "keep one of them")


def check_template_date(merged: Merged) -> Iterator[Problem]:
    """A date is a date."""
    if merged["template_date"] is None:
        return
    try:
        date.fromisoformat(merged["template_date"])
    except ValueError:
        fix = "write it as 2024-07-26"
        yield Problem(merged.places["template_date"], "template_date", f'"{merged["template_date"]}" is no date', fix)


#: Arguments of `apply_chat_template` that Lampyris sets itself, or that do not concern the template.
_OWN_TEMPLATE_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


def check_template_arguments(merged: Merged) -> Iterator[Problem]:
    """Arguments for the template are its own, not those that say what is rendered and how."""
    for name in sorted(_OWN_TEMPLATE_ARGUMENTS & merged["chat_template_kwargs"].keys()):
        what = f"{name} is set by Lampyris for each row"
        yield Problem(merged.places["chat_template_kwargs"], "chat_template_kwargs", what, f"drop {name}")


def check_secrets(merged: Merged) -> Iterator[Problem]:
    """A token is never written into a config."""
    token = merged.written.get("hub_token")
    if token and not ENVIRONMENT_ONLY.fullmatch(str(token)):
        what = "a secret must not stand in a config"
        yield Problem(merged.places["hub_token"], "hub_token", what, "write ${oc.env:HF_TOKEN} and set that variable")


RULES: tuple[Rule, ...] = (
    check_precision,
    check_evaluation,
    check_metric,
    check_supervision,
    check_truncation,
    check_mixture,
    check_steps,
    check_optimizer_arguments,
    check_scale_out,
    check_loader,
    check_template_date,
    check_template_arguments,
    check_secrets,
    *BATCH_RULES,
    *ADAPTER_RULES,
    *LOSS_RULES,
    *GRPO_RULES,
    *TOKEN_RULES,
    *MEMORY_RULES,
)


def apply_rules(merged: Merged) -> list[Problem]:
    """All problems that the rules find; a rule over a refused value ends there."""
    problems = []
    for rule in RULES:
        with suppress(RefusedValueError):
            for problem in rule(merged):
                problems.append(problem)
    return problems

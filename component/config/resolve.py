"""What follows from other keys: defaults that depend on them, and keys that nothing reads beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from component.config.batches import resolve_batches
from component.config.choices import MARGIN_LOSSES, SMOOTHED_LOSSES
from component.config.keys import SHIPPED_TASKS
from component.config.schema import schema_fields


def resolve_eval_strategy(values: Mapping[str, Any]) -> str:
    """Complete eval_strategy: never without evaluation data, else as written, else by eval_steps, else each epoch."""
    if not (values["eval_file"] or values["eval_split"]):
        return "no"
    return values["eval_strategy"] or ("steps" if values["eval_steps"] else "epoch")


def default_for(metadata: Mapping[str, Any], task_type: str, train_mode: str) -> Any:
    """What a key declares for a task and a mode; None where it declares nothing."""
    if metadata["default_by_mode"]:
        by_mode = metadata["default_by_mode"]
        return by_mode.get(task_type, by_mode["sft"])[train_mode]
    return (metadata["default_by_task"] or {}).get(task_type)


def resolve_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the keys whose default depends on others (shown by `--dry_run` and written to the run)."""
    resolved = dict(values)
    for name, item in schema_fields().items():
        if resolved[name] is None:
            resolved[name] = default_for(item.metadata, resolved["task_type"], resolved["train_mode"])
    resolved["eval_strategy"] = resolve_eval_strategy(resolved)
    resolved |= resolve_batches(resolved)
    if resolved["greater_is_better"] is None:
        resolved["greater_is_better"] = not resolved["metric_for_best_model"].endswith(("loss", "perplexity"))
    return resolved


def _is_smoothed(values: Mapping[str, Any]) -> bool:
    return any(name in SMOOTHED_LOSSES.get(values["task_type"], ()) for name in values["loss_type"] or ())


def _has_loss(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: any(name in names for name in values["loss_type"] or ())


#: Keys that are read only beside certain values of another -> which, and whether it is so.
DEPENDENT_KEYS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "per_device_eval_batch_size": ("evaluation data", lambda values: values["eval_strategy"] != "no"),
    "eval_delay": ("evaluation data", lambda values: values["eval_strategy"] != "no"),
    "eval_steps": ("eval_strategy: steps", lambda values: values["eval_strategy"] == "steps"),
    "save_steps": ("save_strategy: steps", lambda values: values["save_strategy"] == "steps"),
    "logging_steps": ("logging_strategy: steps", lambda values: values["logging_strategy"] == "steps"),
    "early_stopping_threshold": (
        "early_stopping_patience",
        lambda values: values["early_stopping_patience"] is not None,
    ),
    "generation_max_new_tokens": ("num_eval_generations", lambda values: values["num_eval_generations"] > 0),
    "loss_weights": ("several names in loss_type", lambda values: len(values["loss_type"] or ()) > 1),
    "label_smoothing": (
        "; ".join(f"loss_type {', '.join(names)} of {task}" for task, names in SMOOTHED_LOSSES.items()),
        _is_smoothed,
    ),
    "simpo_gamma": (f"loss_type {', '.join(MARGIN_LOSSES)}", _has_loss(*MARGIN_LOSSES)),
    "cpo_alpha": ("other losses than alphapo", lambda values: values["loss_type"] != ["alphapo"]),
    "discopop_tau": ("loss_type discopop", _has_loss("discopop")),
    "f_alpha_divergence_coef": (
        "f_divergence_type: alpha_divergence",
        lambda values: values["f_divergence_type"] == "alpha_divergence",
    ),
    "bnb_4bit_quant_type": ("quantization: int4", lambda values: values["quantization"] == "int4"),
    "bnb_4bit_use_double_quant": ("quantization: int4", lambda values: values["quantization"] == "int4"),
    "reference_model_name_or_path": (
        "beta above 0",
        lambda values: values["task_type"] != "grpo" or values["beta"] > 0,
    ),
    "reward_weights": ("several reward_functions", lambda values: len(values["reward_functions"]) > 1),
    "vllm_gpu_memory_utilization": ("use_vllm", lambda values: values["use_vllm"]),
    "gradient_checkpointing_kwargs": ("gradient_checkpointing", lambda values: values["gradient_checkpointing"]),
}


def foreign_keys(values: Mapping[str, Any]) -> dict[str, str]:
    """The keys of other tasks or modes than the chosen ones -> whose; a plugin's task may read those of every task."""
    foreign = {}
    is_plugin_task = values["task_type"] not in SHIPPED_TASKS
    for name, item in schema_fields().items():
        for chooser, readers in (("task_type", item.metadata["tasks"]), ("train_mode", item.metadata["modes"])):
            if chooser == "task_type" and is_plugin_task:
                continue
            if readers is not None and values[chooser] not in readers:
                foreign[name] = f"{chooser} {values[chooser]} does not read it, only {', '.join(readers)}"
    return foreign


def ignored_keys(values: Mapping[str, Any]) -> dict[str, str]:
    """The keys that nothing reads beside the values of others -> what would."""
    ignored = foreign_keys(values)
    for name, (reader, is_read) in DEPENDENT_KEYS.items():
        if not is_read(values):
            ignored.setdefault(name, f"only read with {reader}")
    return ignored

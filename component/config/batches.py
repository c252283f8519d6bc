"""How many rows an optimizer step learns from: the keys that say it, which of them wins, and what may change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from component.config.errors import Problem
from component.config.merged import Merged, Rule

AUTO = "auto"
DEFAULT_ACCUMULATION = 4
#: Rows of a step where the micro-batch is left to the card and nothing is said of the step: what is learned must not
#: depend on the card. The defaults of micro-batch and accumulation, 4 x 4, make as many.
DEFAULT_GLOBAL_BATCH = 16

MICRO_BATCH, ACCUMULATION, GLOBAL = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size",
)  # fmt: skip


def resolve_batches(values: Mapping[str, Any]) -> dict[str, Any]:
    """What follows for the keys of a step from one another; None where the card or the number of processes decides."""
    micro_batch, accumulation, total = (values[key] for key in (MICRO_BATCH, ACCUMULATION, GLOBAL))
    if micro_batch == AUTO and total is None:
        total = DEFAULT_GLOBAL_BATCH
    if accumulation is None and total is None:
        accumulation = DEFAULT_ACCUMULATION
    evaluation = values["per_device_eval_batch_size"]
    if evaluation is None and micro_batch != AUTO:
        evaluation = micro_batch
    return {ACCUMULATION: accumulation, GLOBAL: total, "per_device_eval_batch_size": evaluation}


def superseded_accumulation(merged: Merged) -> str | None:
    """What in a later layer takes the place of gradient_accumulation_steps of an earlier one; None where nothing does.

    A base that fixes the accumulation can so be built on by a config that fixes the rows of a step.
    """
    for key in (GLOBAL, MICRO_BATCH):
        wins = _decides(merged, key) and merged.is_set(ACCUMULATION)
        if wins and merged.position(key)[0] > merged.position(ACCUMULATION)[0]:
            return f"{key}: {merged.values[key]}"
    return None


def check_batches(merged: Merged) -> Iterator[Problem]:
    """The rows of a step are said in one way, and divide into micro-batches."""
    total, micro_batch = merged[GLOBAL], merged[MICRO_BATCH]
    if merged[ACCUMULATION] is not None:
        for key in (GLOBAL, MICRO_BATCH):
            if _decides(merged, key):
                what = f"{ACCUMULATION} {merged[ACCUMULATION]} beside {key}: {merged[key]}, which decides it"
                fix = f"drop {ACCUMULATION} and set {GLOBAL}, or set {key} {'null' if key == GLOBAL else 'to a number'}"
                yield merged.clash(ACCUMULATION, key, what, fix)
                return
    if total is not None and micro_batch != AUTO and total % micro_batch:
        what = f"{GLOBAL} {total} is no multiple of {MICRO_BATCH} {micro_batch}"
        yield merged.clash(GLOBAL, MICRO_BATCH, what, f"make it one, or set {MICRO_BATCH}: auto")
    reason = why_micro_batch_matters(merged.values) if micro_batch == AUTO else None
    if reason:
        key, what, fix = reason
        yield merged.clash(MICRO_BATCH, key, f"auto lets the card choose the micro-batch, and {what}", fix)


def why_micro_batch_matters(values: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Why what is learned depends on the micro-batch beyond the rows of a step: the key, the reason and a way out."""
    task, fix = values.get("task_type"), f"set {MICRO_BATCH} to a number such as 4"
    if task == "kto":
        return "task_type", "kto compares the answers of a micro-batch", fix
    if task == "grpo" and values.get("steps_per_generation") is not None:
        return "steps_per_generation", "steps_per_generation counts micro-batches whose completions are sampled", fix
    if task == "grpo" and values.get("num_iterations", 1) > 1:
        return "num_iterations", "num_iterations goes on with completions that were sampled for micro-batches", fix
    if values.get("dataloader_drop_last"):
        what = "dataloader_drop_last drops as many rows as an incomplete micro-batch has"
        return "dataloader_drop_last", what, f"set dataloader_drop_last: false, or {MICRO_BATCH} to a number"
    return None


def _decides(merged: Merged, key: str) -> bool:
    """Whether a key leaves gradient_accumulation_steps nothing to say."""
    value = merged.values.get(key)
    return value == AUTO if key == MICRO_BATCH else value is not None


BATCH_RULES: tuple[Rule, ...] = (check_batches,)

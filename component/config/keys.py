"""How a key of the config is declared, and the names of tasks and modes that declarations refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

MODES = ("full", "lora", "qlora")
ADAPTER_MODES = ("lora", "qlora")
PREFERENCE_TASKS = ("dpo", "orpo", "cpo", "kto")
LANGUAGE_MODEL_TASKS = ("pretrain", "sft")
#: Tasks whose rows a chat template renders.
CHAT_TASKS = ("sft", *PREFERENCE_TASKS, "reward", "grpo")
SHIPPED_TASKS = ("pretrain", *CHAT_TASKS)

MAX_SEED = 2**32 - 1
"""The largest seed that numpy takes."""


def key(
    default: Any,
    help: str,
    *,
    tasks: tuple[str, ...] | None = None,
    modes: tuple[str, ...] | None = None,
    loaders: tuple[str, ...] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    default_by_task: Mapping[str, Any] | None = None,
    default_by_mode: Mapping[str, Mapping[str, Any]] | None = None,
    default_note: str = "",
    one_or_many: bool = False,
    path: bool = False,
    cosmetic: bool = False,
    memory: bool = False,
) -> Any:
    """Declare a key.

    Args:
        default: the value when no layer sets it; MISSING makes the key mandatory.
        help: one sentence for the reference page and for editors.
        tasks, modes, loaders: who reads it; None means all. Set elsewhere, it is a recorded notice.
        minimum, above, maximum, below: inclusive and exclusive limits of a number.
        default_by_task: the default for each `task_type`, for keys whose default is None.
        default_by_mode: the same for each `task_type` and its `train_mode`; a plugin's task has those of sft.
        default_note: how a None default is completed, for the reference page.
        one_or_many: a single text is accepted for a list.
        path: names a file or folder, relative to the working directory.
        cosmetic: does not change what is trained; a run may be resumed with another value.
        memory: trades memory for time and leaves what is learned as it is, but for rounding and dropout's draws; a run
            may be resumed with another value, which is a notice.
    """
    metadata = {
        "help": help,
        "tasks": tasks,
        "modes": modes,
        "loaders": loaders,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "below": below,
        "default_by_task": default_by_task,
        "default_by_mode": default_by_mode,
        "default_note": default_note,
        "one_or_many": one_or_many,
        "path": path,
        "cosmetic": cosmetic,
        "memory": memory,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)

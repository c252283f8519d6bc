"""When the device runs out of memory: a checkpoint of the last step, and the settings with which the run goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from component.artifacts.checkpoints import check_checkpoint, newest_good_checkpoint
from component.config.batches import AUTO, why_micro_batch_matters
from component.config.errors import COMMAND_LINE, DeviceMemoryError
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.load import Config
from component.config.settle import with_values
from component.pipeline.batches import rows_per_process
from component.pipeline.plan_inputs import offline_adapter_config, setting_of
from component.pipeline.plan_run import data_size
from component.pipeline.prepare import PreparedRun
from component.pipeline.saving_settings import fewest_savings, spell_overrides
from component.pipeline.settle_run import device_room
from component.planning.choice import Candidate, Freedom, Layout
from component.planning.choose import choose
from component.planning.gpus import describe_hardware
from component.planning.memory import plan_memory
from component.planning.read_config import Setting, mean_workload, read_workload
from component.planning.shape import read_shape
from component.planning.workload import Workload
from component.runtime.device_memory import release_memory
from component.runtime.distributed import launcher_words

#: Of the peak that was predicted and did not fit, what the next settings may be predicted to take: the planner was
#: wrong at least once.
NEXT_SHARE = 0.85
#: Changes what is learned, so not in the same folder.
OTHER_WAYS = "a smaller max_seq_length or train_mode=qlora"


@contextmanager
def memory_advice(prepared: PreparedRun, trainer: Any, *, may_save: bool = True) -> Iterator[None]:
    """Turn lack of device memory in training and evaluation into a checkpoint and advice.

    Args:
        may_save: whether the weights in memory are those of the last step.

    Raises:
        DeviceMemoryError: with the checkpoint, and the settings to go on with.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        release_memory(error)
        saved = _save(trainer) if may_save else None
        overrides = fitting_overrides(prepared)
        folder = Path(prepared.config.run.output_dir)
        raise DeviceMemoryError(
            f"out of memory after step {trainer.state.global_step}: {reason}",
            _start_of(saved, folder),
            _advice(prepared, overrides),
        ) from None


def _save(trainer: Any) -> Path | None:
    """The checkpoint of the last step, whole, if it can be had."""
    import torch

    try:
        path = trainer.save_last_step()
    except torch.OutOfMemoryError as error:
        release_memory(error)
        return None
    return path if path is not None and check_checkpoint(path) is None else None


def _start_of(saved: Path | None, folder: Path) -> str:
    if saved is not None:
        return f"{saved} is complete; the run goes on from it"
    earlier = newest_good_checkpoint(folder)
    return f"the run goes on from {earlier}" if earlier else "there is no checkpoint yet; the run starts again"


def _advice(prepared: PreparedRun, overrides: Mapping[str, Any]) -> str:
    if overrides:
        return f"go on with: {resume_command(prepared.config, overrides)}"
    saving = _savings(prepared)
    first = f"{' '.join(spell_overrides(saving))}, " if saving else ""
    return f"nothing that can be changed in this output_dir takes less; use {first}{OTHER_WAYS} in a new one"


def resume_command(config: Config, overrides: Mapping[str, Any]) -> str:
    """The command of a run with other settings; without a config file, the settings alone."""
    changes = [f"{key}={_spell(value)}" for key, value in overrides.items()]
    if config.path is None:
        return " ".join(changes)
    given = [
        f"{key}={_spell(config.written[key])}"
        for key, place in config.places.items()
        if place.source == COMMAND_LINE.source and key not in overrides and key in config.written
    ]
    return shlex.join([*launcher_words(), "train.py", "--train_args_file", config.path, *given, *changes])


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def fitting_overrides(prepared: PreparedRun) -> dict[str, Any]:
    """The fastest settings that leave what is learned alone and take clearly less than these, else what takes least.

    Empty where these do already.
    """
    config, now = prepared.config, _planned(prepared)
    if now is None:
        return _halved(config)
    card, setting, data = describe_hardware(prepared.hardware), _setting(prepared), data_size(prepared)
    limit = _limit(prepared, now)
    layouts = []
    for rows in _micro_batches(config):
        smaller = with_values(config, _batch(config, rows) | {"gradient_checkpointing": True})
        workload = replace(read_workload(smaller, now.shape, setting, data), is_dequantized=False)
        steps = rows_per_process(config) // rows
        layouts.append(Layout(workload, mean_workload(workload, data), steps))
    skips = config.model.task_type in LANGUAGE_MODEL_TASKS
    freedom = Freedom(
        skipped_layers=None if skips else 0, dequantized=(False, True) if now.is_dequantized else (False,)
    )
    chosen = choose(layouts, freedom, card, room=limit).chosen  # where nothing has room, what takes least
    return _written(config, chosen) if chosen.memory.reserved < plan_memory(now).reserved else {}


def _savings(prepared: PreparedRun) -> Mapping[str, Any]:
    """Settings that only a new run can take; none where nothing is predicted, or they do not do."""
    now, start = _planned(prepared), offline_adapter_config(prepared.config.model.model_name_or_path)
    return {} if now is None else fewest_savings(prepared.config, now, start, room=_limit(prepared, now))


def _planned(prepared: PreparedRun) -> Workload | None:
    shape = read_shape(prepared.model_config)
    return None if shape is None else read_workload(prepared.config, shape, _setting(prepared), data_size(prepared))


def _setting(prepared: PreparedRun) -> Setting:
    return setting_of(
        prepared.config, prepared.model_config, prepared.hardware, prepared.loader.got, prepared.precision
    )


def _limit(prepared: PreparedRun, now: Workload) -> float:
    """Bytes that the next settings may reserve, after those of `now` did not fit."""
    return NEXT_SHARE * min(plan_memory(now).reserved, device_room(prepared.config, prepared.hardware))


def _micro_batches(config: Config) -> list[int]:
    """Sizes up to the present one that divide the rows of a step."""
    rows, whole = config.training.per_device_train_batch_size, rows_per_process(config)
    if why_micro_batch_matters(config.values):
        return [rows]
    return [size for size in range(1, rows + 1) if whole % size == 0]


def _batch(config: Config, rows: int) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": rows_per_process(config) // rows,
    }
    size = config.training.per_device_eval_batch_size
    if config.model.task_type != "grpo" and size is not None:  # grpo evaluates whole groups
        changes["per_device_eval_batch_size"] = min(rows, size)
    return changes


def _written(config: Config, chosen: Candidate) -> dict[str, Any]:
    """What of the chosen settings is to be written on the command line."""
    settings = {**chosen.settings(), **_batch(config, chosen.workload.rows)}
    settings.pop("packing")
    kept = {"gradient_checkpointing": bool(config.model.gradient_checkpointing)}
    changed = {key: value for key, value in settings.items() if kept.get(key, config.values.get(key)) != value}
    return _with_step(config, changed)


def _with_step(config: Config, changed: dict[str, Any]) -> dict[str, Any]:
    """The overrides that keep the rows of a step, whichever key of the config says them."""
    if "per_device_train_batch_size" not in changed:
        changed.pop("gradient_accumulation_steps", None)
    elif config.training.global_batch_size is not None:
        changed.pop("gradient_accumulation_steps", None)
        if config.written["per_device_train_batch_size"] == AUTO and "global_batch_size" not in config.places:
            changed["global_batch_size"] = config.training.global_batch_size
    return changed


def _halved(config: Config) -> dict[str, Any]:
    """What to try where nothing can be predicted."""
    training = config.training
    rows = training.per_device_train_batch_size
    if rows % 2 == 0 and not why_micro_batch_matters(config.values):
        accumulation = 2 * training.gradient_accumulation_steps
        return _with_step(
            config, {"per_device_train_batch_size": rows // 2, "gradient_accumulation_steps": accumulation}
        )
    return {} if config.model.gradient_checkpointing else {"gradient_checkpointing": True}

"""Which loader a run gets, decided before transformers is imported: Unsloth must come first and patches the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.model_files import ModelSource, find_model, read_source_config
from component.models.preparing import max_positions
from component.models.quantization import check_quantization
from component.models.support import FASTER_TASKS, is_fast_family, why_unsupported

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware

#: Tells a restarted process why the one before gave Unsloth up.
FAILURE_VARIABLE = "LAMPYRIS_UNSLOTH_FAILED"
IMPORTED_AFTER_UNSLOTH = ("transformers", "trl", "peft")


@dataclass(frozen=True)
class LoaderChoice:
    """A loader by its name in the registry.

    Attributes:
        asked: the value of `use_unsloth`, or of `model_loader` where that is set.
        got: "vanilla" or "unsloth".
        reason: why, in words for a person.
        is_fallback: whether Unsloth was asked for and something else is used; worth a warning.
    """

    asked: bool | str
    got: str
    reason: str
    is_fallback: bool = False


def choose_loader(model: ModelSection, task_type: str, hardware: Hardware) -> LoaderChoice:
    """Choose the loader from config.json, what is installed, the hardware and the support table.

    Raises:
        UserError: `use_unsloth: require` cannot be met, or the model is missing or unreachable.
    """
    asked = model.use_unsloth
    if model.model_loader is not None:
        return LoaderChoice(model.model_loader, model.model_loader, "model_loader names it")
    if asked is False:
        return LoaderChoice(asked, "vanilla", "use_unsloth: false")
    source = find_model(model)
    config = read_source_config(source)
    obstacle = _obstacle(model, task_type, hardware, source, config)
    if asked == "auto":
        obstacle = obstacle or _no_gain(model, task_type, hardware, config)
        if obstacle is not None:
            return LoaderChoice(asked, "vanilla", obstacle)
        return LoaderChoice(asked, "unsloth", f"Unsloth has its own kernels for {config['model_type']}")
    if obstacle is None:
        return LoaderChoice(asked, "unsloth", "as asked")
    if asked == "require":
        raise UserError(f"use_unsloth: require cannot be met: {obstacle}; mend that, or use use_unsloth: true")
    return LoaderChoice(asked, "vanilla", obstacle, is_fallback=True)


def restart_with_vanilla(reason: str) -> NoReturn:
    """Replace this process, which Unsloth has patched, by one of the same command that uses the vanilla loader."""
    os.environ[FAILURE_VARIABLE] = reason
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _obstacle(
    model: ModelSection, task_type: str, hardware: Hardware, source: ModelSource, config: Mapping[str, Any]
) -> str | None:
    """Why Unsloth cannot load this; None if it can."""
    failed = os.environ.get(FAILURE_VARIABLE)
    if failed:
        return f"Unsloth failed in this run: {failed}"
    missing = [name for name in ("unsloth", "unsloth_zoo") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed (pip install --no-deps -r requirements-unsloth.txt)"
    too_early = [name for name in IMPORTED_AFTER_UNSLOTH if name in sys.modules and "unsloth" not in sys.modules]
    if too_early:
        return f"{', '.join(too_early)} was imported before it, perhaps by a plugin"
    return (
        why_unsupported(str(config.get("model_type")), task_type)
        or _hardware_obstacle(model, hardware)
        or _setting_obstacle(model, source, config)
    )


def _hardware_obstacle(model: ModelSection, hardware: Hardware) -> str | None:
    if hardware.kind not in ("cuda", "cpu"):
        return f"Unsloth is used on NVIDIA GPUs and CPUs here, and this is {hardware.name}"
    if model.train_mode == "qlora" and model.quantization == "int8" and hardware.kind == "cpu":
        return "Unsloth makes no 8-bit weights on a CPU"
    if hardware.compute_capability is not None and hardware.compute_capability < (7, 0):
        major, minor = hardware.compute_capability
        return f"Unsloth needs compute capability 7.0, and {hardware.name} has {major}.{minor}"
    return None


def _setting_obstacle(model: ModelSection, source: ModelSource, config: Mapping[str, Any]) -> str | None:
    """Why Unsloth would give something else than the config says; None if it would not."""
    if source.adapter is not None:
        return f"training goes on from the adapter {source.adapter}, which only the vanilla loader does"
    if model.rope_scaling:
        return "rope_scaling is not offered by Unsloth"
    limit = max_positions(config)
    if limit is not None and model.max_seq_length > limit:
        return f"max_seq_length {model.max_seq_length} exceeds the model's {limit} positions, and Unsloth would rescale"
    if check_quantization(config, model.train_mode) not in (None, "bitsandbytes 4-bit"):
        return "the checkpoint is quantized to 8 bit"
    is_4bit = model.train_mode == "qlora" and model.quantization == "int4"
    if is_4bit and not config.get("quantization_config"):
        if model.bnb_4bit_quant_type != "nf4":
            return f"bnb_4bit_quant_type {model.bnb_4bit_quant_type} is not offered by Unsloth"
        if not model.bnb_4bit_use_double_quant:
            return "bnb_4bit_use_double_quant false is not offered by Unsloth"
    return None


def _no_gain(model: ModelSection, task_type: str, hardware: Hardware, config: Mapping[str, Any]) -> str | None:
    """Why `auto` does not take Unsloth although it would work."""
    model_type = str(config.get("model_type"))
    if hardware.kind != "cuda":
        return f"Unsloth brings nothing on {hardware.name}"
    if not is_fast_family(model_type):
        return f"Unsloth has no kernels of its own for model family {model_type!r}"
    if model.train_mode == "full":
        return "Unsloth's own kernels are for adapters, and train_mode is full"
    if task_type not in FASTER_TASKS:
        return f"Unsloth has not been shown to be faster for task {task_type!r} here"
    return None

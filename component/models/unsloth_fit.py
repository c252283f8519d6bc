"""Whether Unsloth trains what a config, its model's config.json and a device say; what a process has is not asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from component.config.schema import ModelSection
from component.models.preparing import max_positions
from component.models.quantization import BITSANDBYTES, stored_quantization
from component.models.support import FASTER_TASKS, is_fast_family, why_unsupported

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware


def why_not_unsloth(
    model: ModelSection, task_type: str, hardware: Hardware, config: Mapping[str, Any], *, adapter: str | None
) -> str | None:
    """Why Unsloth cannot load this, or would give something else than the config says; None if neither is so.

    Args:
        config: the model's config.json, or that of an adapter's base.
        adapter: that training goes on from.
    """
    return (
        why_unsupported(str(config.get("model_type")), task_type)
        or _hardware_obstacle(model, hardware)
        or _setting_obstacle(model, config, adapter)
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


def _setting_obstacle(model: ModelSection, config: Mapping[str, Any], adapter: str | None) -> str | None:
    if adapter is not None:
        return f"training goes on from the adapter {adapter}, which only the vanilla loader does"
    for key in ("deepspeed", "fsdp"):
        if getattr(model, key):
            return f"{key} shards what the vanilla loader has loaded, and Unsloth trains on one GPU"
    if model.rope_scaling:
        return "rope_scaling is not offered by Unsloth"
    limit = max_positions(config)
    if limit is not None and model.max_seq_length > limit:
        return f"max_seq_length {model.max_seq_length} exceeds the model's {limit} positions, and Unsloth would rescale"
    if stored_quantization(config) not in (None, BITSANDBYTES[0]):
        return "the checkpoint is quantized to 8 bit"
    is_4bit = model.train_mode == "qlora" and model.quantization == "int4"
    if is_4bit and not config.get("quantization_config"):
        if model.bnb_4bit_quant_type != "nf4":
            return f"bnb_4bit_quant_type {model.bnb_4bit_quant_type} is not offered by Unsloth"
        if not model.bnb_4bit_use_double_quant:
            return "bnb_4bit_use_double_quant false is not offered by Unsloth"
    return None


def why_no_gain(model: ModelSection, task_type: str, hardware: Hardware, config: Mapping[str, Any]) -> str | None:
    """Why `use_unsloth: auto` does not take Unsloth although it would work; None if it does."""
    model_type = str(config.get("model_type"))
    if hardware.kind != "cuda":
        return f"Unsloth brings nothing on {hardware.name}"
    if not is_fast_family(model_type):
        return f"Unsloth has no kernels of its own for model family {model_type!r}"
    if model.train_mode == "full":
        return "Unsloth's own kernels are for adapters, and train_mode is full"
    if task_type not in FASTER_TASKS:
        return f"Unsloth has not been shown to be faster for task {task_type!r} here"
    if model.reference_model_name_or_path is not None:
        return "a reference model of its own has not been tried beside Unsloth here"
    return None

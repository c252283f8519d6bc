"""Settings that take less memory for more time, for a config with which nothing that is chosen by itself fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from component.config.keys import ADAPTER_MODES, LANGUAGE_MODEL_TASKS
from component.config.load import Config
from component.config.memory_rules import EMBEDDING, HEAD
from component.planning.memory import plan_memory
from component.planning.shape import ModelShape
from component.planning.workload import Workload
from component.runtime.distributed import world_size

#: Tokens of a small part of the loss, as in train_args/base/minimal_memory.json.
SMALL_LOSS_CHUNK = 256


@dataclass(frozen=True)
class Saving:
    """A key of the config and its value, and the field of a workload that it sets."""

    key: str
    value: Any
    field: str
    field_value: Any


def open_savings(config: Config, workload: Workload, start: Mapping[str, Any]) -> Iterator[Saving]:
    """What a config could still take: what costs little first, what takes most time last.

    Args:
        start: adapter_config.json of the adapter that training goes on from; empty without one.
    """
    training, shape = config.training, workload.shape
    if may_be_offloaded(config, shape, EMBEDDING, start) and not workload.offloads_embedding:
        yield Saving("offload_embedding", True, "offloads_embedding", True)
    has_parts = workload.loader == "unsloth" or workload.loss_chunk_tokens is not None
    if workload.task in LANGUAGE_MODEL_TASKS and has_parts and (training.loss_chunk_tokens or 2**31) > SMALL_LOSS_CHUNK:
        yield Saving("loss_chunk_tokens", SMALL_LOSS_CHUNK, "loss_chunk_tokens", SMALL_LOSS_CHUNK)
    if "adamw" in workload.optimizer and "8bit" not in workload.optimizer:
        yield Saving("optim", "paged_adamw_8bit", "optimizer", "paged_adamw_8bit")
    if may_be_offloaded(config, shape, HEAD, start) and not workload.offloads_head:
        yield Saving("offload_head", True, "offloads_head", True)
    if workload.mlp_tile_tokens is None and not shape.experts_per_layer and not workload.has_liger:
        yield Saving("tiled_mlp", True, "mlp_tile_tokens", shape.hidden)


def may_be_offloaded(config: Config, shape: ModelShape, module: str, start: Mapping[str, Any]) -> bool:
    """Whether input embeddings or head, by name, can be in main memory: frozen, two matrices, in one process.

    A head that scores tokens for a loss alone: grpo's would be copied for each token that is generated. Another model
    as reference is loaded alike, and may have one matrix for both.

    Args:
        start: see `open_savings`.
    """
    model, training, adapter = config.model, config.training, config.adapter
    if module == HEAD and model.task_type in ("grpo", "reward"):
        return False
    if model.task_type in ("dpo", "kto", "grpo") and config.values["reference_model_name_or_path"] is not None:
        return False
    trained = {name.rpartition(".")[2] for name in (*adapter.modules_to_save, *adapter.lora_target_modules)}
    trained_before = any(module in str(start.get(key)) for key in ("modules_to_save", "target_modules"))
    trains_rows = bool(model.new_tokens or start.get("trainable_token_indices"))
    is_frozen = model.train_mode in ADAPTER_MODES and not (trains_rows or trained_before or module in trained)
    is_alone = world_size() == 1 and not training.deepspeed and not training.fsdp
    return is_frozen and is_alone and not shape.is_tied


def fewest_savings(config: Config, workload: Workload, start: Mapping[str, Any], *, room: float) -> Mapping[str, Any]:
    """Find the fewest of these settings with which a workload is predicted to fit; none where all do not do.

    Args:
        start: see `open_savings`.
        room: bytes that may be reserved.
    """
    savings = tuple(open_savings(config, workload, start))
    for number in range(1, 1 + len(savings)):
        for some in combinations(savings, number):
            if plan_memory(with_savings(workload, some)).reserved <= room:
                return overrides_of(some)
    return {}


def with_savings(workload: Workload, savings: Iterable[Saving]) -> Workload:
    """The same with these settings."""
    return replace(workload, **{saving.field: saving.field_value for saving in savings})


def overrides_of(savings: Iterable[Saving]) -> dict[str, Any]:
    """Their keys and values."""
    return {saving.key: saving.value for saving in savings}


def spell_overrides(overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Overrides, each as it is written on the command line."""
    return tuple(f"{key}={spell_value(value)}" for key, value in overrides.items())


def spell_value(value: Any) -> str:
    """A value as a config has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

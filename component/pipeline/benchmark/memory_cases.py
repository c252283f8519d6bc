"""The settings of suite `memory`: published shapes by size, ways to train them in the least memory, and cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from component.pipeline.benchmark.case import TRAIN, Case, Rows
from component.planning.known_shapes import KNOWN_CONFIGS
from component.runtime.environment import REPOSITORY

#: Size -> a published model of that size.
SHAPES: Mapping[str, str] = {
    "1B": "meta-llama/Llama-3.2-1B-Instruct",
    "3B": "meta-llama/Llama-3.2-3B-Instruct",
    "7B": "meta-llama/Llama-2-7b-chat-hf",
    "8B": "NousResearch/Meta-Llama-3-8B-Instruct",
    "13B": "meta-llama/Llama-2-13b-chat-hf",
    "14B": "Qwen/Qwen2.5-14B-Instruct",
    "32B": "Qwen/Qwen2.5-32B-Instruct",
    "70B": "meta-llama/Llama-3.1-70B-Instruct",
}
ADAPTER: Mapping[str, Any] = {"use_unsloth": "require", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.0}
#: Where embeddings and head are trained, or are one matrix.
ON_DEVICE: Mapping[str, Any] = {"offload_embedding": False, "offload_head": False}
#: train_mode -> its title and keys.
MODES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qlora": ("QLoRA", ADAPTER),
    "lora": ("16-bit LoRA", ADAPTER),
    "full": ("full", {"use_unsloth": False, **ON_DEVICE}),
}
#: Memory that people call a card by in GB -> name of the card in component/planning/gpus.py, and its memory in GiB.
CARDS: Mapping[int, tuple[str, float]] = {
    24: ("4090", 24.0), 48: ("a6000", 48.0), 80: ("a100-80", 80.0), 141: ("h200", 139.8),
}  # fmt: skip
#: Files of train_args/base/ whose keys a run has, later ones over earlier ones: in the least memory, and on the
#: longest rows.
MINIMAL, LONG = ("minimal_memory.json",), ("qlora.json", "long_context.json")
#: What else a card takes longer rows with: these matrices in main memory, read from there.
OFFLOADED: Mapping[str, Any] = {"offload_embedding": True, "offload_head": True}
LENGTH, WARM_UP, STEPS = 1024, 1, 2
#: Of the longest rows, unless longer ones are asked for: a row of a million tokens takes three quarters of an hour.
CONTEXT_TOKENS = 2**17
#: On a CPU: no Unsloth, no 8-bit optimizer and none of what spares a GPU's memory.
QUICK_KEYS: Mapping[str, Any] = {
    "use_cpu": True, "use_unsloth": False, "optim": "adamw_torch", "max_seq_length": 64, "gradient_checkpointing": True,
    **ON_DEVICE,
}  # fmt: skip


def base_keys(*names: str) -> dict[str, Any]:
    """Keys of files of train_args/base/, of which later ones go over earlier ones; none of them has a base."""
    keys: dict[str, Any] = {}
    for name in names:
        keys |= json.loads((REPOSITORY / "train_args/base" / name).read_text(encoding="utf-8"))
    return keys


def settings_of(model: str, mode: str, length: int, spared: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Keys of a run of one row a micro-batch.

    Args:
        model: id of a known shape; embeddings that are its output head too stay on the device.
        length: of the row in tokens.
        spared: keys that spare memory; those of MINIMAL unless given.
    """
    return {
        "task_type": "sft",
        **(base_keys(*MINIMAL) if spared is None else spared),
        **(ON_DEVICE if KNOWN_CONFIGS.get(model, {}).get("tie_word_embeddings") else {}),
        "train_mode": mode,
        **MODES[mode][1],
        "max_seq_length": length,
        "per_device_train_batch_size": 1,
        # Two, so that gradients of one micro-batch wait while the next is computed.
        "gradient_accumulation_steps": 2,
        "max_steps": WARM_UP + STEPS,
        "logging_steps": 1,
        "truncation": "keep_start",
        "save_strategy": "no",
    }


def context_settings(model: str, length: int) -> dict[str, Any]:
    """Keys of QLoRA on a long row, planned and measured alike; two steps are measured, since a row takes minutes."""
    settings = settings_of(model, "qlora", length, {**base_keys(*LONG), **OFFLOADED})
    return {**settings, "max_steps": WARM_UP + 1}


def build_case(name: str, model: str, settings: Mapping[str, Any], **keys: Any) -> Case:
    """A run that is measured.

    Args:
        settings: its keys, to which others are added or which they replace.
    """
    settings = {**settings, **keys}
    return Case(name, TRAIN, settings, model, Rows("full", 8, settings["max_seq_length"]), WARM_UP)

"""What Unsloth supports: one table of model families and tasks, importable without any heavy package."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

UNSLOTH_VERSION = "2026.10.9"
"""The version that these tables are about."""

#: Families (`model_type` of config.json) with hand-written kernels: the branches of its
#: FastLanguageModel.from_pretrained.
FAST_FAMILIES = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")

#: Families that its compiler takes and its source handles by name (model registry, patches, precision lists).
COMPILED_FAMILIES = (
    "cohere", "deepseek_v3", "falcon_h1", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "glm4_moe", "gpt_oss",
    "granite", "granitemoehybrid", "lfm2_moe", "llama4", "llama4_text", "mixtral", "phi3",
    "qwen3_moe", "qwen3_next",
)  # fmt: skip

#: Tasks, and why one does not go through Unsloth (None: it does).
TASKS: Mapping[str, str | None] = MappingProxyType(
    {
        "pretrain": None,
        "sft": None,
        "dpo": None,
        "orpo": None,
        "cpo": None,
        "grpo": None,
        "kto": None,
        "reward": "Unsloth's CPU backend has no score head, and that of its GPU path has not been tried",
    }
)

#: Tasks whose loss and batches the fast path is known to speed up; `use_unsloth: auto` takes Unsloth for these alone.
FASTER_TASKS = ("pretrain", "sft", "dpo", "kto")


def is_fast_family(model_type: str) -> bool:
    """Whether Unsloth has hand-written kernels for a family."""
    return model_type in FAST_FAMILIES


def why_unsupported(model_type: str, task_type: str) -> str | None:
    """Why Unsloth cannot train a family on a task; None if it can."""
    if model_type not in FAST_FAMILIES and model_type not in COMPILED_FAMILIES:
        return f"model family {model_type!r} is not one that Unsloth is known to support"
    return TASKS.get(task_type, f"task {task_type!r} has not been verified on Unsloth")

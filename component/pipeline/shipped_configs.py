"""The configs in train_args/ that are made from the table of model families: differences from the bases alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from component.config.hint import say_rate
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.models.families import Checkpoint, checkpoints, settings_for_size

#: What each task trains on until it is told otherwise.
TRAIN_FILES: Mapping[str, str] = {
    "pretrain": "data/pretrain",
    "sft": "data/dummy_data.jsonl",
    "dpo": "data/dummy_dpo.jsonl",
    "orpo": "data/dummy_dpo.jsonl",
    "cpo": "data/dummy_dpo.jsonl",
    "kto": "data/samples/kto.jsonl",
    "reward": "data/dummy_dpo.jsonl",
    "grpo": "data/samples/prompt_only.jsonl",
}

#: Models of the table by task and mode. sft with qlora, the recipe of most runs, has all chat models besides.
SHIPPED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("sft", "qlora"): ("bloom-7b1",),
    ("sft", "lora"): ("llama3.1-8b-base", "mistral-7b", "qwen3-8b", "gemma3-4b"),
    ("sft", "full"): ("llama3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "smollm3-3b-base"),
    ("pretrain", "qlora"): ("yi-6b-base", "mistral-7b-base"),
    ("pretrain", "lora"): ("qwen3-8b-base",),
    ("pretrain", "full"): ("qwen2.5-0.5b-base", "bloom-560m"),
    ("dpo", "qlora"): ("llama3-8b", "qwen3-8b"),
    ("dpo", "lora"): ("qwen2.5-7b", "llama3.2-3b"),
    ("dpo", "full"): ("qwen2.5-0.5b",),
    ("orpo", "qlora"): ("mistral-7b-base",),
    ("orpo", "lora"): ("llama3.2-1b",),
    ("cpo", "qlora"): ("llama3.1-8b",),
    ("cpo", "lora"): ("qwen2.5-7b",),
    ("kto", "qlora"): ("qwen2.5-7b",),
    ("kto", "lora"): ("gemma2-9b",),
    ("reward", "qlora"): ("llama3.1-8b",),
    ("reward", "lora"): ("qwen2.5-0.5b",),
    ("grpo", "qlora"): ("qwen2.5-7b",),
    ("grpo", "lora"): ("qwen3-0.6b",),
}


def config_texts() -> dict[str, str]:
    """Path below train_args/ -> content of each config, in the order of the table."""
    return {
        f"{task}/{mode}/{checkpoint.name}.json": _text(_config(task, mode, checkpoint))
        for (task, mode), names in SHIPPED.items()
        for checkpoint in _chosen(task, mode, names)
    }


def write_configs(folder: Path) -> list[Path]:
    """Write the configs into a train_args folder; what else lies there is left alone.

    Returns:
        The files that were made or changed.
    """
    wrong = wrong_configs(folder)
    for path, text in wrong.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(wrong)


def wrong_configs(folder: Path) -> dict[Path, str]:
    """The configs that a train_args folder lacks or has otherwise, with what they should hold."""
    wanted = {folder / name: text for name, text in config_texts().items()}
    return {
        path: text for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def _chosen(task: str, mode: str, names: tuple[str, ...]) -> Iterator[Checkpoint]:
    takes_all = (task, mode) == ("sft", "qlora")
    known = {checkpoint.name: checkpoint for _, checkpoint in checkpoints()}
    yield from (item for item in known.values() if takes_all and not item.is_base)
    yield from (known[name] for name in names)


def _config(task: str, mode: str, checkpoint: Checkpoint) -> dict[str, Any]:
    config: dict[str, Any] = {
        "base": [f"../../base/{task}.json", f"../../base/{mode}.json"],
        "model_name_or_path": checkpoint.hub_id,
        "train_file": TRAIN_FILES[task],
    }
    if task != "pretrain" and checkpoint.template_name != "auto":
        config["template_name"] = checkpoint.template_name
    if task == "sft":
        config |= checkpoint.sft_settings
    if task in LANGUAGE_MODEL_TASKS:
        config |= settings_for_size(checkpoint.num_billions, mode)
    return config


def _text(config: Mapping[str, Any]) -> str:
    lines = (f"  {json.dumps(key)}: {value_text(value)}" for key, value in config.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def value_text(value: Any) -> str:
    """A value on one line; a small number as people write it, 2e-4."""
    if isinstance(value, float) and 0 < value < 1e-3:
        return say_rate(value)
    return json.dumps(value, ensure_ascii=False)

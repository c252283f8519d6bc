"""Rules over keys that trade memory for speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from component.config.errors import Problem
from component.config.merged import Merged, Rule
from component.config.nodes import excerpt, spell

EMBEDDING, HEAD = "embed_tokens", "lm_head"
#: Keys that keep a module in main memory -> its name, and what it is called.
OFFLOADED: Mapping[str, tuple[str, str]] = {
    "offload_embedding": (EMBEDDING, "embedding"),
    "offload_head": (HEAD, "head"),
}
#: Argument of checkpointing that a config can write -> its values. All but offload, which is transformers', are those
#: of torch.utils.checkpoint; what else it is given goes to the layers, which ignore it.
CHECKPOINT_ARGUMENTS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("use_reentrant", "offload", "preserve_rng_state", "early_stop", "debug"), (True, False)),
    "determinism_check": ("default", "none"),
}
#: What transformers' own trainer would take besides.
FOREIGN_CHECKPOINT_ARGUMENTS = {"every_n_layers": "set checkpoint_skip_layers"}


def check_skipped_layers(merged: Merged) -> Iterator[Problem]:
    """Only layers that would recompute can be kept from it."""
    if merged["checkpoint_skip_layers"] and merged["gradient_checkpointing"] is False:
        what = "checkpoint_skip_layers without gradient_checkpointing, and no layer recomputes then"
        fix = "drop it, or set gradient_checkpointing: true"
        yield merged.clash("checkpoint_skip_layers", "gradient_checkpointing", what, fix)


def check_checkpoint_arguments(merged: Merged) -> Iterator[Problem]:
    """Arguments of checkpointing are known, and have values that it knows."""
    key = "gradient_checkpointing_kwargs"
    for name, value in merged[key].items():
        values = CHECKPOINT_ARGUMENTS.get(name)
        if values is None:
            known = f"use {', '.join(CHECKPOINT_ARGUMENTS)}"
            fix = FOREIGN_CHECKPOINT_ARGUMENTS.get(name, known)
            yield Problem(merged.places[key], key, f'there is no argument "{excerpt(name)}"', fix)
        elif not any(value is item or (isinstance(item, str) and value == item) for item in values):
            fix = f"use {' or '.join(map(spell, values))}"
            yield Problem(merged.places[key], key, f"{name} is {excerpt(spell(value))}", fix)


def check_dequantized_base(merged: Merged) -> Iterator[Problem]:
    """Only 4-bit weights are dequantized once; LLM.int8() computes with its 8-bit ones."""
    if merged["dequantize_base"] is True and merged["quantization"] == "int8":
        what = "dequantize_base is for 4-bit weights, and quantization is int8"
        yield merged.clash("dequantize_base", "quantization", what, "drop one of them")


def check_fp8_base(merged: Merged) -> Iterator[Problem]:
    """A base in 8-bit floats is made of 16-bit weights, and weights that are read or moved alone lack their scales."""
    if merged["fp8_base"] and merged["train_mode"] == "qlora":
        what = "fp8_base rounds a base in 16 bit, and qlora's is in 4 or 8 bit already"
        yield merged.clash("fp8_base", "train_mode", what, "use train_mode: lora, or drop fp8_base")
    if merged["fp8_base"] and merged["use_dora"]:
        yield merged.clash("fp8_base", "use_dora", "use_dora reads weights, which fp8_base rounds", "drop one of them")
    for key in ("deepspeed", "fsdp"):
        if merged["fp8_base"] and merged[key]:
            what = f"{key} casts and splits the weights, and fp8_base's go with scales of their own"
            yield merged.clash("fp8_base", key, what, "drop fp8_base")


def check_offloaded(merged: Merged) -> Iterator[Problem]:
    """Embeddings and heads in main memory are there, frozen, and in one process."""
    for offload, (module, title) in OFFLOADED.items():
        if merged[offload] is not True:  # auto is false where it may not be
            continue
        trained = {
            "train_mode": merged["train_mode"] == "full",
            "new_tokens": bool(merged["new_tokens"]),
            **{key: _names(merged[key], module) for key in ("modules_to_save", "lora_target_modules")},
        }
        for key, is_trained in trained.items():
            if is_trained:
                what = f"{offload} keeps a frozen {title} in main memory, and {key} trains it"
                yield merged.clash(offload, key, what, "drop one of them")
        for key in ("deepspeed", "fsdp"):
            if merged[key]:
                what = f"{key} places the weights itself, and {offload} would keep some in main memory"
                yield merged.clash(offload, key, what, f"drop {offload}")
    if merged["offload_head"] is True and merged["task_type"] == "reward":
        what = "offload_head keeps the head that scores tokens in main memory, and a reward model has none"
        yield merged.clash("offload_head", "task_type", what, "drop offload_head")


def _names(names: list[str], module: str) -> bool:
    return any(name.rpartition(".")[2] == module for name in names)


def check_tiled_mlp(merged: Merged) -> Iterator[Problem]:
    """Liger puts MLPs of its own in the place of those that are tiled."""
    if merged["tiled_mlp"] and merged["use_liger_kernel"] is True and merged["use_unsloth"] is False:
        what = "Liger's kernels replace the MLPs that tiled_mlp computes in tiles"
        yield merged.clash("tiled_mlp", "use_liger_kernel", what, "drop one of them")


MEMORY_RULES: tuple[Rule, ...] = (
    check_skipped_layers,
    check_checkpoint_arguments,
    check_dequantized_base,
    check_fp8_base,
    check_offloaded,
    check_tiled_mlp,
)

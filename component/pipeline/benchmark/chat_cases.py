"""The lines of suite `chat`, as data: on rows of chat length, and on rows full of real tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from component.pipeline.benchmark.case import BARE_LOOP, TRAIN, UNSLOTH_TRAINER

#: Of every run: QLoRA of rank 64 on all linear layers, as Firefly has it.
COMMON: Mapping[str, Any] = {
    "task_type": "sft",
    "train_mode": "qlora",
    "lora_rank": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "gradient_checkpointing": True,
    "gradient_accumulation_steps": 1,
    "optim": "paged_adamw_32bit",
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "truncation": "keep_start",
    "save_strategy": "no",
}
#: What Unsloth's notebooks have otherwise.
OF_NOTEBOOKS: Mapping[str, Any] = {"optim": "adamw_8bit"}
#: Unsloth's own switch for a variable-length kernel, which it has from torch 2.12 on.
NO_VARLEN: Mapping[str, str] = {"UNSLOTH_TORCH_VARLEN": "0"}


@dataclass(frozen=True)
class Variant:
    """A line of the table: a program, keys beside the common ones, rows of a micro-batch and environment."""

    program: str
    batch: int | str
    keys: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    is_default: bool = True


VANILLA, UNSLOTH = {"use_unsloth": False}, {"use_unsloth": "require"}
PACKED, KEEP = {"packing": True}, {"gradient_checkpointing": False}
AUTO = {
    "gradient_checkpointing": "auto", "packing": "auto", "dequantize_base": "auto", "optim": "auto",
    "global_batch_size": 8,
}  # fmt: skip
SEAM = {"varlen_seam": True}
#: Firefly's optimizer, whose states can leave the device.
PAGED = {"optim": "paged_adamw_32bit"}
#: 16-bit LoRA, and the same on a base in 8-bit floats.
LORA, FP8 = {"train_mode": "lora"}, {"train_mode": "lora", "fp8_base": True}

#: On rows of chat length; those that are not default are chosen by --cases.
OF_CHATS: Mapping[str, Variant] = {
    "Firefly's recipe, padded": Variant(BARE_LOOP, 8, VANILLA),
    "Unsloth's trainer": Variant(UNSLOTH_TRAINER, 8, OF_NOTEBOOKS, NO_VARLEN),
    "Unsloth's trainer, varlen": Variant(UNSLOTH_TRAINER, 8, {**OF_NOTEBOOKS, **SEAM}),
    "Unsloth's trainer, packing": Variant(UNSLOTH_TRAINER, 4, {**OF_NOTEBOOKS, **PACKED}, NO_VARLEN),
    "Unsloth's trainer, packing, varlen": Variant(UNSLOTH_TRAINER, 4, {**OF_NOTEBOOKS, **PACKED, **SEAM}),
    "Unsloth's trainer, packing, varlen, no checkpointing": Variant(
        UNSLOTH_TRAINER, 8, {**OF_NOTEBOOKS, **PACKED, **SEAM, **KEEP}, is_default=False
    ),
    "Unsloth's trainer, 16-bit LoRA, packing, varlen, no checkpointing": Variant(
        UNSLOTH_TRAINER, 8, {**OF_NOTEBOOKS, **PACKED, **SEAM, **KEEP, **LORA}, is_default=False
    ),
    "Lampyris, vanilla, padded": Variant(TRAIN, 8, VANILLA),
    "Lampyris, vanilla, packed": Variant(TRAIN, 4, {**VANILLA, **PACKED}),
    "Lampyris, packed": Variant(TRAIN, 4, {**UNSLOTH, **PACKED}),
    "Lampyris, packed, no checkpointing": Variant(TRAIN, 4, {**UNSLOTH, **PACKED, **KEEP}),
    "Lampyris, packed, no checkpointing, dequantized base": Variant(
        TRAIN, 4, {**UNSLOTH, **PACKED, **KEEP, "dequantize_base": True}
    ),
    "Lampyris, auto": Variant(TRAIN, "auto", {**UNSLOTH, **AUTO}),
    "Lampyris, auto, paged_adamw_32bit": Variant(TRAIN, "auto", {**UNSLOTH, **AUTO, **PAGED}),
    "Lampyris, 16-bit LoRA, packed, no checkpointing": Variant(TRAIN, 8, {**UNSLOTH, **PACKED, **KEEP, **LORA}),
    "Lampyris, fp8 base, packed, no checkpointing": Variant(TRAIN, 8, {**UNSLOTH, **PACKED, **KEEP, **FP8}),
    "vanilla, packed, SDPA": Variant(TRAIN, 4, {**VANILLA, **PACKED, "attn_implementation": "sdpa"}, is_default=False),
    "vanilla, packed, flex_attention": Variant(
        TRAIN, 4, {**VANILLA, **PACKED, "attn_implementation": "flex_attention"}, is_default=False
    ),
    "vanilla, packed, varlen": Variant(
        TRAIN, 4, {**VANILLA, **PACKED, "attn_implementation": "varlen"}, is_default=False
    ),
    "Unsloth, padded, train.py": Variant(TRAIN, 8, UNSLOTH, is_default=False),
    "Unsloth, packed, without the kernel, train.py": Variant(TRAIN, 4, {**UNSLOTH, **PACKED}, NO_VARLEN, False),
}
#: On rows that are full there is nothing to pack.
OF_FULL_ROWS: Mapping[str, Variant] = {
    "Firefly's recipe": Variant(BARE_LOOP, 4, VANILLA),
    "Unsloth's trainer": Variant(UNSLOTH_TRAINER, 4, OF_NOTEBOOKS, NO_VARLEN),
    "Unsloth's trainer, varlen": Variant(UNSLOTH_TRAINER, 4, {**OF_NOTEBOOKS, **SEAM}),
    "Lampyris, vanilla": Variant(TRAIN, 4, VANILLA),
    "Lampyris": Variant(TRAIN, 4, UNSLOTH),
    "Lampyris, Unsloth's own adapters": Variant(TRAIN, 4, {**UNSLOTH, "fused_lora": False}, is_default=False),
    "Lampyris, no checkpointing": Variant(TRAIN, 4, {**UNSLOTH, **KEEP}),
    "Lampyris, no checkpointing, dequantized base": Variant(TRAIN, 4, {**UNSLOTH, **KEEP, "dequantize_base": True}),
    "Lampyris, auto": Variant(TRAIN, "auto", {**UNSLOTH, **AUTO}),
    "Lampyris, auto, paged_adamw_32bit": Variant(TRAIN, "auto", {**UNSLOTH, **AUTO, **PAGED}),
    "Lampyris, fp8 base, no checkpointing": Variant(TRAIN, 8, {**UNSLOTH, **KEEP, **FP8}),
}
VARIANTS: Mapping[str, Mapping[str, Variant]] = {"chat": OF_CHATS, "full": OF_FULL_ROWS}

#: On a CPU Unsloth has neither kernels nor packing; these exercise the code.
QUICK_CASES: Mapping[str, tuple[str, ...]] = {
    "chat": ("Firefly's recipe, padded", "Lampyris, vanilla, packed"),
    "full": ("Firefly's recipe", "Lampyris, vanilla"),
}
QUICK_KEYS: Mapping[str, Any] = {
    "train_mode": "lora", "lora_rank": 4, "max_seq_length": 128, "use_cpu": True, "optim": "adamw_torch",
    "use_unsloth": False,
}  # fmt: skip

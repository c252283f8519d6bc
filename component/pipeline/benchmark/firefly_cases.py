"""The settings of suite `firefly`: Firefly's own, those that Lampyris recommends, and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from component.pipeline.benchmark.case import BARE_LOOP, TRAIN
from component.pipeline.benchmark.chat_cases import COMMON

LENGTHS, BATCHES = (1024, 2048), (1, 2, 4, 8)

#: Of the published table, accumulation aside: that is an option, since a micro-batch takes as long whatever it is.
FIREFLY: Mapping[str, Any] = {
    **COMMON,
    "lora_dropout": 0.05,
    "fp16": True,
    "learning_rate": 1e-4,
}


@dataclass(frozen=True)
class Setup:
    """A column of the table: a program and its keys beside Firefly's; sizes share a process."""

    program: str
    keys: Mapping[str, Any]
    is_default: bool = True


BF16 = {"fp16": False, "bf16": True, "lora_dropout": 0.0, "use_unsloth": "require"}
BASELINE = "Firefly"
SETUPS: Mapping[str, Setup] = {
    BASELINE: Setup(BARE_LOOP, {"use_unsloth": False}),
    "Firefly x Unsloth": Setup(BARE_LOOP, {"use_unsloth": "require"}),
    "Lampyris, tuned for speed": Setup(TRAIN, {**BF16, "gradient_checkpointing": False, "dequantize_base": True}),
    "Lampyris, auto": Setup(
        TRAIN, {**BF16, "gradient_checkpointing": "auto", "dequantize_base": "auto"}, is_default=False
    ),
    "Lampyris, tuned for memory": Setup(TRAIN, {**BF16, "optim": "paged_adamw_8bit"}, is_default=False),
    "Lampyris, Firefly's settings": Setup(TRAIN, {"use_unsloth": "require"}, is_default=False),
    "Lampyris, Firefly's settings, vanilla": Setup(TRAIN, {"use_unsloth": False}, is_default=False),
}


@dataclass(frozen=True)
class Published:
    """A published claim: Firefly with Unsloth beside Firefly without, shares of change; None where none was given."""

    what: str
    speed: float
    time: float | None
    memory: float
    least_gb: float | None = None


PUBLISHED = (
    Published("Firefly x Unsloth, Llama-3-8B, V100", 0.4435, -0.3072, -0.4258, 7.75),
    Published("Firefly x Unsloth, Qwen1.5-7B, V100", 0.4732, None, -0.3913, 8.43),
    Published("Unsloth, Llama-2-7B, A100", 0.87, None, -0.393),
    Published("Unsloth, Mistral-7B, A100", 0.88, None, -0.659),
)
#: The tiny sizes of --quick.
QUICK_LENGTHS, QUICK_BATCHES = (64, 128), (1, 2)

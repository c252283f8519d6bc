"""The section of the adapter."""

from __future__ import annotations

from dataclasses import dataclass

from component.config.keys import ADAPTER_MODES, key
from component.config.sections.shared import TaskKeys


@dataclass(frozen=True)
class AdapterSection(TaskKeys):
    """The LoRA adapter (https://arxiv.org/abs/2106.09685)."""

    lora_rank: int = key(64, "Rank of the adapter matrices.", modes=ADAPTER_MODES, above=0)
    lora_alpha: int = key(
        16, "Scale of the adapter: its output counts lora_alpha / lora_rank.", modes=ADAPTER_MODES, above=0
    )
    lora_dropout: float = key(
        0.0,
        "Dropout on the adapter's input; above 0 costs Unsloth's fused kernels.",
        modes=ADAPTER_MODES,
        minimum=0,
        below=1,
    )
    lora_target_modules: list[str] = key(
        ["all-linear"],
        "Names of the linear layers that get an adapter; all-linear takes all of the language model except its head.",
        modes=ADAPTER_MODES,
        one_or_many=True,
    )

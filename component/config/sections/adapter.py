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
    lora_dropout: float = key(0.0, "Dropout on the adapter's input.", modes=ADAPTER_MODES, minimum=0, below=1)
    lora_target_modules: list[str] = key(
        ["all-linear"],
        "Names of the linear layers that get an adapter; all-linear takes all of the language model except its head.",
        modes=ADAPTER_MODES,
        one_or_many=True,
    )
    layers_to_transform: list[int | str] = key(
        [],
        'Layers that get an adapter, by number or range: [0, "4-7"]; counted from 0.',
        modes=ADAPTER_MODES,
        one_or_many=True,
        default_note="all",
    )
    modules_to_save: list[str] = key(
        [],
        "Names of further modules that are trained in full and saved with the adapter, such as embed_tokens and "
        "lm_head.",
        modes=ADAPTER_MODES,
        one_or_many=True,
    )
    use_rslora: bool = key(
        False,
        "Count the adapter's output lora_alpha / sqrt(lora_rank), for high ranks (https://arxiv.org/abs/2312.03732).",
        modes=ADAPTER_MODES,
    )
    use_dora: bool = key(
        False,
        "Learn the length of each weight's output vector apart from its direction; slower "
        "(https://arxiv.org/abs/2402.09353).",
        modes=ADAPTER_MODES,
    )
    lora_bias: bool = key(False, "Give the adapter's second matrix a bias.", modes=ADAPTER_MODES)
    init_lora_weights: bool | str = key(
        True,
        "How the adapter starts, by PEFT's name: true, gaussian, orthogonal, or from the weights themselves, in "
        "16 bit: pissa, pissa_niter_16, olora, mica.",
        modes=ADAPTER_MODES,
    )

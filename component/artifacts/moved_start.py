"""Adapters whose start moved weights out of the base (PiSSA, OLoRA), saved as adapters to the base as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def subtract_start(folder: Path, start: Mapping[str, Tensor]) -> None:
    """Rewrite a saved adapter for the unchanged base: its output less that of its start, at twice the rank.

    With B0 A0 moved out of the base, W - B0 A0 + B A = W + [B | -B0] [A ; A0] (https://arxiv.org/abs/2404.02948,
    appendix). PEFT's own conversion leaves out modules_to_save and biases.

    Args:
        folder: of the saved adapter.
        start: the adapter's weights before training, under the names they are saved with.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    for name, value in weights.items():
        if name.endswith(".lora_A.weight"):
            weights[name] = torch.cat([value, start[name].to(value)], dim=0)
        elif name.endswith(".lora_B.weight"):
            weights[name] = torch.cat([value, -start[name].to(value)], dim=1)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    # The scale is alpha / r, or alpha / sqrt(r) with rslora; it stays.
    config |= {
        "r": 2 * config["r"],
        "lora_alpha": config["lora_alpha"] * (2**0.5 if config["use_rslora"] else 2),
        "init_lora_weights": True,
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

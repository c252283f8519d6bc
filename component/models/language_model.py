"""The language model of a checkpoint that also sees or hears: the class it is loaded as, and what around it rests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

#: Parts of a path that belong to the vision or audio side of a multimodal model, or join it to the language model.
TOWER_WORDS = ("vision", "visual", "image", "audio", "speech", "multi_modal", "mm_proj", "merger")
_TOWER = re.compile("|".join(TOWER_WORDS))


def auto_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that loads a checkpoint for text: where a family has no other, with its towers.

    Of some vision-language families AutoModelForCausalLM loads the language model alone (Qwen3.5), of others the whole
    (Gemma 3), and some only AutoModelForImageTextToText knows (Ministral 3). An adapter fits the class that it was
    trained on, so the one that transformers itself takes for text is used.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    is_whole = type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if is_whole else AutoModelForCausalLM


def loaded_class(config: PreTrainedConfig) -> Any | None:
    """The class that `auto_class` makes; None for code that a checkpoint brings."""
    return auto_class(config)._model_mapping.get(type(config), None)


def explain_left_out(config: PreTrainedConfig) -> str | None:
    """Say so where a checkpoint's language model is loaded without the rest of it."""
    loaded_as = loaded_class(config)
    if loaded_as is None or loaded_as.config_class is type(config):
        return None
    return (
        f"of this {config.model_type} checkpoint the language model alone is loaded ({loaded_as.__name__}): "
        "what is trained in full, or merged, is saved without the parts that see"
    )


def is_tower(path: str) -> bool:
    """Whether a module or parameter of this name lies outside the language model."""
    return _TOWER.search(path) is not None


def freeze_towers(model: nn.Module) -> str | None:
    """Freeze what lies outside the language model: training on text gives it no gradient.

    Returns:
        A notice, None where there is nothing of the kind.
    """
    towers = [parameter for name, parameter in model.named_parameters() if is_tower(name)]
    for parameter in towers:
        parameter.requires_grad_(False)
    num_frozen = sum(parameter.numel() for parameter in towers)
    return f"{num_frozen:,} parameters outside the language model stay as they are" if towers else None

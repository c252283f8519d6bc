"""Sizes are counted as transformers' own models have them, and published ones as they are published."""

from __future__ import annotations

import pytest

from component.models.families import checkpoints
from component.models.tiny_families import TINY_FAMILIES, build_family_config
from component.planning.known_shapes import KNOWN_CONFIGS, KNOWN_POSITIONS
from component.planning.shape import FUSED_PROJECTIONS, read_shape

#: Of the shipped families, those whose layers are built otherwise.
UNKNOWN = {"minicpm3", "bloom", "glm4_moe_lite", "gemma3", "gemma4", "qwen3_5", "mistral3"}


@pytest.mark.parametrize("family", sorted(TINY_FAMILIES.keys() - UNKNOWN))
def test_parameters_are_those_of_the_model(family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = build_family_config(family, vocab_size=1000, token_ids=tokens)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = read_shape(config.to_dict())
    assert shape is not None
    assert shape.num_parameters == model.num_parameters()
    heads = (model.get_output_embeddings(),)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module not in heads]
    assert shape.num_layers * shape.linear_per_layer == sum(module.weight.numel() for module in linear)


@pytest.mark.parametrize("family", sorted(UNKNOWN))
def test_other_families_are_not_guessed(family: str) -> None:
    config = build_family_config(family, vocab_size=1000, token_ids={"pad_token_id": 2})
    assert read_shape(config.to_dict()) is None


def test_every_family_that_is_known_is_tried() -> None:
    assert FUSED_PROJECTIONS.keys() - {"ministral3"} == TINY_FAMILIES.keys() - UNKNOWN


def test_published_sizes_give_the_published_number_of_parameters() -> None:
    """Billions, rounded to one digit after the point as people quote them."""
    known = {item.hub_id: item.num_billions for _, item in checkpoints() if item.hub_id in KNOWN_CONFIGS}
    assert len(known) == 49
    assert known.keys() == KNOWN_CONFIGS.keys() == KNOWN_POSITIONS.keys()
    counted = {name: read_shape(config).num_parameters / 1e9 for name, config in KNOWN_CONFIGS.items()}
    assert {name: value for name, value in counted.items() if abs(value - known[name]) > 0.06} == {}

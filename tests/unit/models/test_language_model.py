"""As which class a checkpoint is loaded for text, and what of it is the language model."""

from __future__ import annotations

import pytest

from component.models.language_model import explain_left_out, freeze_towers, is_tower, loaded_class
from component.models.tiny_families import TINY_FAMILIES, build_family_config, build_family_model

TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
VISION_LANGUAGE = [name for name, sizes in TINY_FAMILIES.items() if "vision_config" in sizes]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("llama", "LlamaForCausalLM"),
        ("gemma3_text", "Gemma3ForCausalLM"),
        ("gemma3", "Gemma3ForConditionalGeneration"),
        ("gemma4", "Gemma4ForConditionalGeneration"),
        ("qwen3_5", "Qwen3_5ForCausalLM"),
        ("mistral3", "Mistral3ForConditionalGeneration"),
    ],
)
def test_class_for_text(model_type: str, expected: str) -> None:
    config = build_family_config(model_type, vocab_size=300, token_ids=TOKENS)
    assert loaded_class(config).__name__ == expected
    is_part = model_type == "qwen3_5"
    assert (explain_left_out(config) is not None) is is_part
    if is_part:
        assert explain_left_out(config) == (
            "of this qwen3_5 checkpoint the language model alone is loaded (Qwen3_5ForCausalLM): what is trained in "
            "full, or merged, is saved without the parts that see"
        )


def test_there_are_vision_language_families() -> None:
    assert VISION_LANGUAGE == ["gemma3", "gemma4", "qwen3_5", "mistral3"]


@pytest.mark.parametrize("model_type", VISION_LANGUAGE)
def test_towers_are_what_lies_outside_the_decoder_and_its_head(model_type: str) -> None:
    """The names tell the same as the structure that transformers itself knows."""
    model = build_family_model(build_family_config(model_type, vocab_size=300, token_ids=TOKENS), seed=0)
    inside = {id(parameter) for parameter in model.get_decoder().parameters()}
    inside |= {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    outside = {name for name, parameter in model.named_parameters() if id(parameter) not in inside}
    assert {name for name, _ in model.named_parameters() if is_tower(name)} == outside
    assert len(outside) > 5
    notice = freeze_towers(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    count = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    assert frozen == outside
    assert notice == f"{count:,} parameters outside the language model stay as they are"


def test_a_text_model_has_no_towers() -> None:
    for model_type in set(TINY_FAMILIES) - set(VISION_LANGUAGE):
        model = build_family_model(build_family_config(model_type, vocab_size=300, token_ids=TOKENS), seed=0)
        assert freeze_towers(model) is None, model_type
        assert all(parameter.requires_grad for parameter in model.parameters())

"""Which layers `all-linear` reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from component.config.errors import UserError
from component.models.adapters import explain_unadapted_experts, find_targets
from component.models.tiny_families import build_family_config, build_family_model


class Multimodal(nn.Module):
    """Names as multimodal models have them: towers, a projector, tied leaf names and a head."""

    def __init__(self) -> None:
        super().__init__()
        block = {"q_proj": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
        self.vision_tower = nn.ModuleDict(block)
        self.multi_modal_projector = nn.Linear(4, 4)
        self.language_model = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "fc": nn.Linear(4, 4)})
        self.lm_head = nn.Linear(4, 8)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def test_all_linear_leaves_towers_projector_and_head() -> None:
    assert find_targets(Multimodal(), ["all-linear"]) == ["language_model.fc", "language_model.q_proj"]


def test_names_that_reach_only_the_targets_stay_short() -> None:
    assert find_targets(Multimodal(), ["fc"]) == ["fc"]
    assert find_targets(Multimodal(), ["q_proj"]) == ["q_proj"]
    assert find_targets(Multimodal(), ["language_model.q_proj"]) == ["language_model.q_proj"]


def test_fused_experts_are_told() -> None:
    model = nn.Module()
    model.experts = nn.Module()
    model.experts.gate_up_proj = nn.Parameter(torch.zeros(2, 3, 4))
    assert explain_unadapted_experts(model) == (
        "24 parameters of fused experts are no linear layers: they get no adapter and stay frozen"
    )
    assert explain_unadapted_experts(Multimodal()) is None


def test_layers_that_peft_takes_for_experts_are_left_out() -> None:
    """Its table would move their adapters to the experts, in a run and whenever the adapter is loaded."""
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = build_family_model(build_family_config("glm4_moe_lite", vocab_size=300, token_ids=tokens), seed=0)
    names = ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"]
    assert find_targets(model, ["all-linear"]) == names
    with pytest.raises(UserError) as caught:
        find_targets(model, ["o_proj", "gate_proj"])
    assert caught.value.messages == (
        "lora_target_modules: 'gate_proj' cannot be a target in this model: PEFT takes it for its experts; "
        "leave it out",
    )
    assert explain_unadapted_experts(model) == (
        "49,152 parameters of fused experts are no linear layers: they get no adapter and stay frozen; nor do 6 linear "
        "layers beside them, whose names PEFT takes for the experts'"
    )

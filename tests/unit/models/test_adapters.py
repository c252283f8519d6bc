"""Which layers `all-linear` reaches."""

from __future__ import annotations

import torch
from torch import nn

from component.models.adapters import explain_unadapted_experts, find_targets


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

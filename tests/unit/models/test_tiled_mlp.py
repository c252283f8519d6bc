"""MLPs tile by tile: the same step, with fewer tokens in each MLP, and refused where there is none."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from component.config.errors import UserError
from component.models.tiled_mlp import tile_mlps

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
IDS = torch.arange(2 * 21).view(2, 21) * 7 % 50


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_step_is_the_same(checkpoints: bool) -> None:
    """42 tokens in tiles of 16, alone and within recomputed layers."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).train()
    if checkpoints:
        model.gradient_checkpointing_enable()

    def step() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        return [loss.detach(), *(value.grad for value in model.parameters())]

    theirs = step()
    assert tile_mlps(model) == 16
    rows = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    for ours, expected in zip(step(), theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    assert set(rows) == {16, 10}
    rows.clear()
    with torch.no_grad():
        model(input_ids=IDS)
    assert rows == [16, 16, 10]


def test_recomputation_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Unsloth has put in its place."""

    def nested(*args: object, **kwargs: object) -> None:
        raise AssertionError("a checkpoint within a checkpoint")

    module = torch.utils.checkpoint
    monkeypatch.setattr(module, "_unsloth_pristine_checkpoint", module.checkpoint, raising=False)
    monkeypatch.setattr(module, "checkpoint", nested)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    tile_mlps(model)
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_what_a_loader_put_there_is_called_and_leaves_its_input() -> None:
    """As Unsloth's: its backward pass may write the input's gradient over the input."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    calls = []

    def forward(x: torch.Tensor, inplace: bool = True) -> torch.Tensor:
        calls.append((tuple(x.shape), inplace))
        return 2 * x

    mlp = model.model.layers[0].mlp
    mlp.forward = forward
    tile_mlps(model)
    x = torch.arange(2 * 10 * 16.0).view(2, 10, 16)
    with torch.no_grad():
        assert torch.equal(mlp(x), 2 * x)
    assert calls == [((1, 16, 16), False), ((1, 4, 16), False)]


def test_experts_are_refused() -> None:
    config = MixtralConfig(**SIZES, num_local_experts=2)
    with pytest.raises(UserError, match="tiled_mlp: the layers of this mixtral model have no dense module called mlp"):
        tile_mlps(MixtralForCausalLM(config))

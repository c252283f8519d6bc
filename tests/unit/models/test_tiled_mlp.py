"""MLPs tile by tile: the same step, with fewer tokens in each MLP, and refused where there is none."""

from __future__ import annotations

from types import MethodType
from typing import Any

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


class _OverItsInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.mul(2 * x, gradient, out=x.detach())


def apply_lora_mlp_geglu_approx(self: Any, x: torch.Tensor) -> torch.Tensor:
    """By the name of Unsloth's function, which takes no `inplace`."""
    return _OverItsInput.apply(x)


def test_an_mlp_that_always_writes_over_its_input_gets_a_copy() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    mlp = model.model.layers[0].mlp
    mlp.forward = MethodType(apply_lora_mlp_geglu_approx, mlp)
    tile_mlps(model)
    x = torch.arange(2 * 10 * 16.0).view(2, 10, 16).requires_grad_()
    hidden = x * 1
    mlp(hidden).sum().backward()
    assert torch.equal(x.grad, 2 * x) and torch.equal(hidden, x)


def test_experts_are_refused() -> None:
    config = MixtralConfig(**SIZES, num_local_experts=2)
    with pytest.raises(UserError, match="tiled_mlp: the layers of this mixtral model have no dense module called mlp"):
        tile_mlps(MixtralForCausalLM(config))

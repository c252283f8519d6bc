"""Where fused adapters take the place of what Unsloth calls, and where its own stays; with its seam as it is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from plain_layers import silu_gated, silu_gated_backward
from torch.multiprocessing.reductions import StorageWeakRef

from component.config.schema import AdapterSection
from component.models.block_compile import MODE, OFF
from component.models.decoder_layers import find_layers
from component.models.fp8_base import round_base
from component.models.unsloth_attention import SEAM_VERSIONS
from component.models.unsloth_lora import MLP, FusedAdapters, Seam, fuse_adapters

VERSION = SEAM_VERSIONS[0]


KERNELS = SimpleNamespace(
    swiglu_fg_kernel=silu_gated,
    swiglu_DWf_DW_dfg_kernel=silu_gated_backward,
    fast_dequantize=dequantize_4bit,
)
recomputing = [False]
SEAM = Seam(KERNELS, VERSION, lambda: recomputing[0])


def apply_lora_mlp_swiglu(self: Any, x: torch.Tensor, inplace: bool = True) -> torch.Tensor:
    """By the name of Unsloth's function, plain."""
    return type(self).forward(self, x)


@pytest.fixture
def layers(load, machines):
    """A model with adapters, and its layers with the attributes that Unsloth sets."""

    def build(base: str = "16 bit", **changes: Any) -> tuple[Any, list[Any]]:
        adapter = AdapterSection(lora_rank=4, lora_alpha=8, **changes)
        mode = "qlora" if base == "4 bit" else "lora"
        model = load(adapter, hardware=machines["fast cpu"], train_mode=mode).model
        if base == "fp8":
            assert round_base(model.get_base_model()) is None
        found = list(find_layers(model.get_base_model())[1])
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        for layer in found:
            attention = layer.self_attn
            attention.apply_qkv = lambda own, x: (own.q_proj(x), own.k_proj(x), own.v_proj(x))
            attention.apply_o = lambda own, x: own.o_proj(x)
            layer.mlp.forward = MethodType(apply_lora_mlp_swiglu, layer.mlp)
        return model, found

    return build


def _children(owner: torch.nn.Module, names: Sequence[str]) -> list[Any]:
    return [getattr(owner, name) for name in names]


def _place(weight: torch.Tensor) -> StorageWeakRef:
    """The memory of a weight, which expires where nothing is in it any more."""
    return StorageWeakRef(weight.untyped_storage())


def results(function: Any, x: torch.Tensor, trained: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    outputs = function(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum(output.float().square().sum() for output in outputs)
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, trained)]


@pytest.mark.parametrize("base", ["16 bit", "4 bit", "fp8"])
def test_fused_groups_compute_what_unsloth_calls(layers, base: str) -> None:
    """Within bf16's rounding, gradients of the adapters too; each group in its own place."""
    model, found = layers(base)
    layer = found[1]
    own = layer.self_attn.apply_qkv, layer.self_attn.apply_o, layer.mlp.forward
    assert fuse_adapters(model, SEAM) == FusedAdapters(2, 2, 2, 2)
    fused = layer.self_attn.apply_qkv, layer.self_attn.apply_o, layer.mlp.forward
    model.train()
    x = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for place, names in enumerate((("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj"))):
        owner = layer.mlp if place == 2 else layer.self_attn
        arguments = () if place == 2 else (layer.self_attn,)
        trained = [p for name in names for p in getattr(owner, name).parameters() if p.requires_grad]
        assert len(trained) == 2 * len(names)
        plain, ours = (results(partial(call, *arguments), x, trained) for call in (own[place], fused[place]))
        assert len(plain) == len(ours)
        for one, other in zip(ours, plain, strict=True):
            assert (one - other).float().norm() <= 0.02 * other.float().norm(), names


@pytest.mark.parametrize("base", ["16 bit", "4 bit"])
def test_an_output_that_nobody_reads_is_not_computed(layers, base: str, monkeypatch) -> None:
    """A recomputation only keeps what the backward pass needs, and its gradients are the same."""
    model, (layer, _) = layers(base)
    fuse_adapters(model, SEAM)
    model.train()
    x = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).requires_grad_()
    trained = [x, *(p for p in layer.mlp.parameters() if p.requires_grad)]

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        output = layer.mlp.forward(x)
        return output.detach(), list(torch.autograd.grad(output, trained, torch.ones_like(output)))

    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    whole, expected = gradients()
    recomputing[0] = True
    try:
        empty, found = gradients()
    finally:
        recomputing[0] = False
    assert whole.abs().max() > 0 and empty.abs().max() == 0
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_weights_leave_is_given_back_layer_by_layer(layers, monkeypatch) -> None:
    """Weights that are moved into larger ones leave room that is too small for the next layer's."""
    model, found = layers()
    places = [[_place(part.base_layer.weight) for part in _children(layer.mlp, MLP)] for layer in found]
    given: list[list[bool]] = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: given.append([all(place.expired() for place in left) for left in places])
    )
    fuse_adapters(model, SEAM)
    assert given == [[True, False], [True, True]]


def test_weights_of_4_bit_stay_where_they_are(layers, monkeypatch) -> None:
    model, _ = layers("4 bit")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("nothing was left"))
    assert fuse_adapters(model, SEAM).mlps == 2


def test_an_mlp_that_is_followed_by_a_norm_is_always_computed(layers) -> None:
    model, (layer, _) = layers()
    layer.post_feedforward_layernorm = torch.nn.Identity()
    fuse_adapters(model, SEAM)
    model.train()
    recomputing[0] = True
    try:
        output = layer.mlp.forward(torch.ones(1, 3, 64, dtype=torch.bfloat16))
    finally:
        recomputing[0] = False
    expected = type(layer.mlp).forward(layer.mlp, torch.ones(1, 3, 64, dtype=torch.bfloat16))
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)


def test_what_computes_otherwise_than_unsloth_is_not_used(layers) -> None:
    """The groups of one layer are held to what they replace, before any of them takes its place."""
    model, (layer, _) = layers("4 bit")
    own = layer.self_attn.apply_qkv
    wrong = SimpleNamespace(**vars(KERNELS) | {"fast_dequantize": lambda *weight: 1.1 * dequantize_4bit(*weight)})
    found = fuse_adapters(model, replace(SEAM, kernels=wrong))
    assert found.describe().startswith("no: fused adapters differ from Unsloth's own by 1")
    assert len(found.notices()) == 1 and layer.self_attn.apply_qkv is own

    def fail(*weight: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: no such kernel\nmore")

    failing = SimpleNamespace(**vars(KERNELS) | {"fast_dequantize": fail})
    found = fuse_adapters(model, replace(SEAM, kernels=failing))
    assert found.obstacle == "fused adapters fail here: CUDA error: no such kernel"


def test_weights_that_come_into_one_buffer(layers) -> None:
    """Each is used up before the next: numbers are those of weights that have memory of their own."""
    buffer, sizes = torch.empty(2**16, dtype=torch.bfloat16), []

    def into_buffer(weight: Any, state: Any, out: Any = None, use_global_buffer: bool = False) -> torch.Tensor:
        assert use_global_buffer
        restored = dequantize_4bit(weight, state)
        sizes.append(restored.numel())
        return buffer[: restored.numel()].view_as(restored).copy_(restored)

    model, (layer, _) = layers("4 bit")
    own = layer.mlp.forward, layer.self_attn.apply_qkv
    kernels = SimpleNamespace(**vars(KERNELS) | {"fast_dequantize": into_buffer})
    assert fuse_adapters(model, replace(SEAM, kernels=kernels)) == FusedAdapters(2, 2, 2, 2)
    assert len(set(sizes)) > 1
    model.train()
    x = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for owner, fused, plain in (
        (layer.mlp, layer.mlp.forward, own[0]),
        (layer.self_attn, partial(layer.self_attn.apply_qkv, layer.self_attn), partial(own[1], layer.self_attn)),
    ):
        names = [name for name, part in owner.named_children() if hasattr(part, "lora_A") and name != "o_proj"]
        trained = [getattr(owner, name).lora_A["default"].weight for name in names]
        trained += [getattr(owner, name).lora_B["default"].weight for name in names]
        for mine, theirs in zip(results(fused, x, trained), results(plain, x, trained), strict=True):
            torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.03, atol=0.03 * float(theirs.abs().max()))


def test_layers_with_fused_adapters_are_left_out_of_compiling(layers) -> None:
    model, found = layers()
    other = found[1]
    other.self_attn.apply_qkv = other.self_attn.apply_o = None
    del other.mlp.forward
    fuse_adapters(model, SEAM)
    assert [vars(layer).get(MODE) for layer in found] == [OFF, None]


def test_layers_in_a_larger_compiled_region_are_unsloths_own(layers, monkeypatch) -> None:
    model, (layer, _) = layers()
    calls: list[str] = []
    layer.self_attn.apply_o = lambda own, x: calls.append("theirs") or own.o_proj(x)
    fuse_adapters(model, SEAM)
    calls.clear()  # it was asked once, for comparison
    model.train()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    layer.self_attn.apply_o(layer.self_attn, torch.ones(1, 3, 64, dtype=torch.bfloat16))
    assert calls == ["theirs"]


def test_what_was_there_serves_evaluation_and_passes_without_the_adapter(layers) -> None:
    model, (layer, _) = layers()
    calls: list[str] = []
    layer.self_attn.apply_o = lambda own, x: calls.append("theirs") or own.o_proj(x)
    fuse_adapters(model, SEAM)
    calls.clear()  # it was asked once, for comparison
    assert "inplace" in signature(layer.mlp.forward).parameters
    attention, x = layer.self_attn, torch.ones(1, 3, 64, dtype=torch.bfloat16)
    model.train()
    attention.apply_o(attention, x)
    assert calls == []
    with model.disable_adapter():
        attention.apply_o(attention, x)
    with torch.autocast("cpu", torch.bfloat16):
        attention.apply_o(attention, x.float())
    model.eval()
    attention.apply_o(attention, x)
    assert calls == ["theirs"] * 3


def test_what_cannot_be_fused_is_left_and_said(layers) -> None:
    model, _ = layers(lora_dropout=0.1)
    none = fuse_adapters(model, SEAM)
    assert none.describe() == "no: no group of projections has a plain adapter on frozen weights"
    other = fuse_adapters(model, replace(SEAM, version="2030.1"))
    assert other.describe() == f"no: layers are reached in Unsloth {VERSION} only, and this is 2030.1"
    model, (layer, _) = layers(lora_target_modules=["q_proj", "k_proj", "o_proj"])
    assert fuse_adapters(model, SEAM) == FusedAdapters(0, 2, 0, 2)
    assert not hasattr(layer.self_attn.apply_qkv, "_fused")

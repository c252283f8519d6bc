"""Fused adapters against PEFT's order of operations, in float64: outputs and all gradients."""

from __future__ import annotations

import pytest
import torch
from plain_layers import layer_of, silu_gated, silu_gated_backward
from torch import Tensor, nn
from torch.nn import functional

from component.models.fused_lora import Adapted, SharedInput
from component.models.fused_mlp import GatedMlp, SplitGatedMlp

HIDDEN, INNER, RANK, TOKENS = 12, 20, 4, 7


def adapted(
    generator: torch.Generator, size_in: int, size_out: int, *, bias: bool = False, scaling: float = 0.3
) -> Adapted:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5

    base = nn.Linear(size_in, size_out, bias=bias, dtype=torch.float64).requires_grad_(False)
    base.weight.copy_(draw(size_out, size_in))
    return Adapted(base, layer_of(draw(RANK, size_in)), layer_of(draw(size_out, RANK)), scaling)


def plain(layer: Adapted, x: Tensor) -> Tensor:
    weight, bias = layer.base.weight.clone(), layer.base.bias
    return functional.linear(x, weight, bias) + layer.scaling * (x @ layer.a.t()) @ layer.b.t()


def results(function, x: Tensor, layers: list[Adapted]) -> list[Tensor]:
    x = x.detach().requires_grad_()
    outputs = function(x)
    weights = [torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view(output.shape) for output in outputs]
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    inputs = [x, *(matrix for layer in layers for matrix in (layer.a, layer.b))]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, inputs)]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def x(generator) -> Tensor:
    return torch.randn(2, TOKENS, HIDDEN, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("bias", [False, True])
def test_projections_of_one_input(generator, x, bias) -> None:
    layers = [adapted(generator, HIDDEN, size, bias=bias, scaling=0.5 / size) for size in (12, 6, 6)]
    assert_same(
        results(SharedInput(layers), x, layers), results(lambda x: [plain(layer, x) for layer in layers], x, layers)
    )


@pytest.mark.parametrize("kind", [GatedMlp, SplitGatedMlp])
def test_a_gated_mlp(generator, x, kind) -> None:
    gate, up = (adapted(generator, HIDDEN, INNER) for _ in range(2))
    down = adapted(generator, INNER, HIDDEN, scaling=0.7)
    layers = [gate, up, down]
    expected = results(lambda x: [plain(down, silu_gated(plain(gate, x), plain(up, x)))], x, layers)
    weights = [layer.base.weight.clone() for layer in layers]
    mlp = kind(gate, up, down, silu_gated, silu_gated_backward)
    assert_same(results(lambda x: [mlp(x)], x, layers), expected)
    assert all(torch.equal(layer.base.weight, weight) for layer, weight in zip(layers, weights, strict=True))


def test_an_update_of_the_adapter_is_seen(generator, x) -> None:
    layers = [adapted(generator, HIDDEN, HIDDEN)]
    group = SharedInput(layers)
    before = group(x)[0]
    layers[0].b.data.mul_(2)  # as an optimizer does that leaves no trace in torch's counters
    after = group(x)[0]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, plain(layers[0], x))
    layers[0].down.weight = nn.Parameter(2 * layers[0].a.detach())  # as loading an adapter may do
    assert not torch.equal(group(x)[0], after)
    torch.testing.assert_close(group(x)[0], plain(layers[0], x))


def test_frozen_inputs_get_no_gradient(generator, x) -> None:
    layers = [adapted(generator, HIDDEN, 6), adapted(generator, HIDDEN, 8)]
    outputs = SharedInput(layers)(x)
    sum(output.sum() for output in outputs).backward()
    assert x.grad is None
    assert all(layer.b.grad is not None and layer.a.grad is not None for layer in layers)


def test_a_bias_may_have_a_format_of_its_own_and_there_may_be_no_tokens(generator) -> None:
    layer = adapted(generator, HIDDEN, INNER, bias=True)
    layer.base.bias = nn.Parameter(layer.base.bias.float(), requires_grad=False)
    for shape in ((2, 3, HIDDEN), (2, 0, HIDDEN)):
        x = torch.ones(shape, dtype=torch.float64)
        (output,) = SharedInput([layer])(x)
        assert output.shape == (*shape[:-1], INNER)
        bias = layer.base.bias.double()
        expected = x @ layer.base.weight.t() + bias + layer.scaling * (x @ layer.a.t()) @ layer.b.t()
        torch.testing.assert_close(output, expected)

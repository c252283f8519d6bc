"""LoRA around frozen 16-bit weights in few passes over the activations: autograd functions for projections and MLPs.

A layer and its adapter, y = x W^T + s (x A^T) B^T, cost little arithmetic for the adapter, but one after the other
they take many readings and writings of x and y. Here:

- adapters on the same input share their readings of it: one product with [A_1; A_2; ...];
- x A^T is kept for the gradient of B instead of being computed again;
- where the output is wide, the adapter's product rides in the layer's own: [x A^T | x] [s B | W]^T, and in the backward
  pass [dy | s dy B] [W; A].

Numbers differ from the plain order of operations by rounding alone (`tests/unit/models/test_fused_lora.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: activation(gate, up) of shape (1, T, I) -> hidden; and, given its gradient, (hidden, d up, d gate), each (T, I).
Activation = Callable[[Tensor, Tensor], Tensor]
ActivationBackward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A frozen linear layer with one adapter.

    Attributes:
        base: its weight has shape (O, I).
        a, b: the adapter's matrices, shapes (r, I) and (O, r), in their own number format.
        scaling: of the adapter's product.
    """

    base: nn.Linear
    a: nn.Parameter
    b: nn.Parameter
    scaling: float

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]


class SharedInput:
    """Projections of one input, such as query, key and value.

    Args:
        layers: with weights in one 16-bit format.
    """

    def __init__(self, layers: Sequence[Adapted]) -> None:
        self.layers = tuple(layers)
        weight = layers[0].base.weight
        self.a = weight.new_empty(sum(layer.rank for layer in layers), weight.shape[1])
        self.b = tuple(layer.base.weight.new_empty(layer.b.shape) for layer in layers)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs, each of shape (..., O), of x of shape (..., I)."""
        adapters = (matrix for layer in self.layers for matrix in (layer.a, layer.b))
        outputs = _SharedInputFunction.apply(x.reshape(-1, x.shape[-1]), self, *adapters)
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    def refresh(self) -> None:
        """Take over the adapters as they are now: A, and s B."""
        _stack([layer.a for layer in self.layers], self.a)
        for layer, b in zip(self.layers, self.b, strict=True):
            torch.mul(layer.b.detach(), layer.scaling, out=b)

    def columns(self, stacked: Tensor) -> tuple[Tensor, ...]:
        """The part of each layer of a tensor of shape (T, sum of ranks)."""
        return stacked.split([layer.rank for layer in self.layers], dim=1)


class _SharedInputFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SharedInput, *adapters: Tensor) -> tuple[Tensor, ...]:
        """All outputs, (T, O) each, of x of shape (T, I)."""
        group.refresh()
        down = x @ group.a.t()
        outputs = []
        for layer, b, part in zip(group.layers, group.b, group.columns(down), strict=True):
            base = layer.base
            output = x @ base.weight.t() if base.bias is None else torch.addmm(base.bias, x, base.weight.t())
            outputs.append(output.addmm_(part, b.t()))
        ctx.group = group
        ctx.save_for_backward(x, down)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of each layer, from those of the outputs."""
        group: SharedInput = ctx.group
        x, down = ctx.saved_tensors
        of_down, of_adapters = torch.empty_like(down), []
        for layer, b, gradient, part, mine in zip(
            group.layers, group.b, gradients, group.columns(down), group.columns(of_down), strict=True
        ):
            torch.mm(gradient, b, out=mine)
            of_adapters.append(_scaled_product(gradient.t(), part, layer.scaling))
        of_a = (of_down.t() @ x).split([layer.rank for layer in group.layers])
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradients[0] @ group.layers[0].base.weight
            for layer, gradient in zip(group.layers[1:], gradients[1:], strict=True):
                of_x.addmm_(gradient, layer.base.weight)
            of_x.addmm_(of_down, group.a)
        return of_x, None, *(each for pair in zip(of_a, of_adapters, strict=True) for each in pair)


class GatedMlp:
    """down(activation(gate(x), up(x))) with an adapter on each of the three.

    The weights of the layers become views of wider ones that hold their adapters too: memory grows by these alone.

    Args:
        gate, up, down: without biases, with weights in one 16-bit format and adapters of one rank.
    """

    def __init__(
        self, gate: Adapted, up: Adapted, down: Adapted, activation: Activation, backward: ActivationBackward
    ) -> None:
        self.gate, self.up, self.down = gate, up, down
        self.activation, self.activation_backward = activation, backward
        rank, (inner, hidden) = gate.rank, gate.base.weight.shape
        self.rank = rank
        new = gate.base.weight.new_empty
        # [s B | W] of the gate, [W | s B] of up, [W; A] of down: the wide input is [x A_gate | x | x A_up].
        self.gate_wide, self.up_wide = new(inner, rank + hidden), new(inner, hidden + rank)
        self.down_tall = new(hidden + rank, inner)
        self.down_b, self.a = new(hidden, rank), new(2 * rank, hidden)
        _move_weight(gate.base, self.gate_wide[:, rank:])
        _move_weight(up.base, self.up_wide[:, :hidden])
        _move_weight(down.base, self.down_tall[:hidden])

    def __call__(self, x: Tensor) -> Tensor:
        """Of x of shape (..., H), the same shape."""
        layers = (self.gate, self.up, self.down)
        adapters = (matrix for layer in layers for matrix in (layer.a, layer.b))
        return _GatedMlpFunction.apply(x.reshape(-1, x.shape[-1]), self, *adapters).view(x.shape)

    def refresh(self) -> None:
        """Take over the adapters as they are now."""
        hidden = self.down_b.shape[0]
        _stack([self.gate.a, self.up.a], self.a)
        self.down_tall[hidden:].copy_(self.down.a.detach())
        for layer, b in (
            (self.gate, self.gate_wide[:, : self.rank]),
            (self.up, self.up_wide[:, hidden:]),
            (self.down, self.down_b),
        ):
            torch.mul(layer.b.detach(), layer.scaling, out=b)

    def wide_parts(self, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x A_gate, x and x A_up of the wide input, shape (T, r + H + r)."""
        first, x, last = wide.split([self.rank, self.down_b.shape[0], self.rank], dim=1)
        return first, x, last


class _GatedMlpFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: GatedMlp, *adapters: Tensor) -> Tensor:
        """The output, (T, H), of x of the same shape."""
        mlp.refresh()
        hidden, rank = mlp.down_b.shape
        of_gate, of_up = (x @ mlp.a.t()).split(rank, dim=1)
        wide = torch.cat([of_gate, x, of_up], dim=1)
        gate = wide[:, : rank + hidden] @ mlp.gate_wide.t()
        up = wide[:, rank:] @ mlp.up_wide.t()
        inner = mlp.activation(gate[None], up[None])[0]
        of_down = inner @ mlp.down_tall[hidden:].t()
        output = (inner @ mlp.down_tall[:hidden].t()).addmm_(of_down, mlp.down_b.t())
        ctx.mlp = mlp
        ctx.save_for_backward(wide, gate, up, of_down)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of gate, up and down, from that of the output."""
        mlp: GatedMlp = ctx.mlp
        wide, gate, up, of_down = ctx.saved_tensors
        hidden, rank = mlp.down_b.shape
        of_gate, x, of_up = mlp.wide_parts(wide)
        down_small = gradient @ mlp.down_b
        of_inner = torch.cat([gradient, down_small], dim=1) @ mlp.down_tall
        inner, up_gradient, gate_gradient = mlp.activation_backward(of_inner, gate, up)
        small = x.new_empty(x.shape[0], 2 * rank)
        gate_small, up_small = small.split(rank, dim=1)
        torch.mm(gate_gradient, mlp.gate_wide[:, :rank], out=gate_small)
        torch.mm(up_gradient, mlp.up_wide[:, hidden:], out=up_small)
        gate_a, up_a = (small.t() @ x).split(rank)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gate_gradient @ mlp.gate_wide[:, rank:]
            of_x.addmm_(up_gradient, mlp.up_wide[:, :hidden]).addmm_(small, mlp.a)
        return (
            of_x,
            None,
            gate_a,
            _scaled_product(gate_gradient.t(), of_gate, mlp.gate.scaling),
            up_a,
            _scaled_product(up_gradient.t(), of_up, mlp.up.scaling),
            down_small.t() @ inner,
            _scaled_product(gradient.t(), of_down, mlp.down.scaling),
        )


def _stack(matrices: Sequence[nn.Parameter], into: Tensor) -> None:
    """Copy matrices into one below the other."""
    for matrix, part in zip(matrices, into.split([matrix.shape[0] for matrix in matrices]), strict=True):
        part.copy_(matrix.detach())


def _move_weight(layer: nn.Linear, to: Tensor) -> None:
    """Copy a frozen weight into a part of another tensor, and let the layer use that."""
    layer.weight = nn.Parameter(to.copy_(layer.weight.detach()), requires_grad=False)


def _scaled_product(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """scale (one @ other), scaled before it is rounded."""
    product = one.new_empty(one.shape[0], other.shape[1])
    return product.addmm_(one, other, beta=0, alpha=scale)

"""LoRA around frozen weights in few passes over the activations: autograd functions for projections and MLPs.

A layer and its adapter, y = x W^T + s (x A^T) B^T, cost little arithmetic for the adapter, but one after the other
they take many readings and writings of x and y. Here:

- adapters on the same input share their readings of it: one product with [A_1; A_2; ...];
- x A^T is kept for the gradient of B instead of being computed again;
- where the output is wide, the adapter's product rides in the layer's own: [x A^T | x] [s B | W]^T, and in the backward
  pass [dy | s dy B] [W; A].

Numbers differ from the plain order of operations by rounding alone (`tests/unit/models/test_fused_lora.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from component.models.fp8_linear import Fp8Linear, input_gradient, linear_products

#: activation(gate, up) of shape (1, T, I) -> hidden; and, given its gradient, (hidden, d up, d gate), each (T, I).
Activation = Callable[[Tensor, Tensor], Tensor]
ActivationBackward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A frozen linear layer with one adapter.

    Attributes:
        base: its weight has shape (O, I), in 16 bit or, in an Fp8Linear, in 8.
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

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        return torch.bfloat16 if isinstance(self.base, Fp8Linear) else self.base.weight.dtype

    def empty(self, *shape: int) -> Tensor:
        """A tensor beside the base, in the format of the computation."""
        return torch.empty(*shape, dtype=self.dtype, device=self.base.weight.device)


class SharedInput:
    """Projections of one input, such as query, key and value.

    Args:
        layers: with weights in one format.
    """

    def __init__(self, layers: Sequence[Adapted]) -> None:
        self.layers = tuple(layers)
        self.bases = tuple(layer.base for layer in layers)
        self.a = layers[0].empty(sum(layer.rank for layer in layers), self.bases[0].in_features)
        self.b = tuple(layer.empty(*layer.b.shape) for layer in layers)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs, each of shape (..., O), of x of shape (..., I)."""
        adapters = (matrix for layer in self.layers for matrix in (layer.a, layer.b))
        outputs = _SharedInputFunction.apply(x.reshape(-1, x.shape[-1]), self, *adapters)
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    def outputs(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """All outputs, (T, O) each, and x of shape (T, I) times all A, (T, sum of ranks)."""
        _stack([layer.a for layer in self.layers], self.a)
        down = x @ self.a.t()
        outputs = linear_products(self.bases, x)
        for layer, b, output, part in zip(self.layers, self.b, outputs, self._columns(down), strict=True):
            torch.mul(layer.b.detach(), layer.scaling, out=b)
            output.addmm_(part, b.t())
        return outputs, down

    def down_gradient(self, gradients: Sequence[Tensor]) -> Tensor:
        """The gradient of x times all A from those of the outputs."""
        result = self.a.new_empty(gradients[0].shape[0], self.a.shape[0])
        for gradient, b, part in zip(gradients, self.b, self._columns(result), strict=True):
            torch.mm(gradient, b, out=part)
        return result

    def input_gradient(self, gradients: Sequence[Tensor], of_down: Tensor) -> Tensor:
        """The gradient of x, (T, I)."""
        return input_gradient(self.bases, gradients).addmm_(of_down, self.a)

    def adapter_gradients(
        self, x: Tensor, down: Tensor, gradients: Sequence[Tensor], of_down: Tensor
    ) -> Iterator[Tensor]:
        """Those of A and B, layer by layer."""
        of_a = (of_down.t() @ x).split([layer.rank for layer in self.layers])
        for layer, mine, gradient, part in zip(self.layers, of_a, gradients, self._columns(down), strict=True):
            yield mine
            yield _scaled_product(gradient.t(), part, layer.scaling)

    def _columns(self, stacked: Tensor) -> tuple[Tensor, ...]:
        """The part of each layer of a tensor of shape (T, sum of ranks)."""
        return stacked.split([layer.rank for layer in self.layers], dim=1)


class _SharedInputFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SharedInput, *adapters: Tensor) -> tuple[Tensor, ...]:
        """All outputs, (T, O) each, of x of shape (T, I)."""
        outputs, down = group.outputs(x)
        ctx.group = group
        ctx.save_for_backward(x, down)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of each layer, from those of the outputs."""
        group: SharedInput = ctx.group
        x, down = ctx.saved_tensors
        of_down = group.down_gradient(gradients)
        of_x = group.input_gradient(gradients, of_down) if ctx.needs_input_grad[0] else None
        return of_x, None, *group.adapter_gradients(x, down, gradients, of_down)


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

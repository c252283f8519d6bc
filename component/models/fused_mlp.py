"""Gated MLPs with adapters on frozen weights, each as one autograd function; see `component.models.fused_lora`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from component.models.fused_lora import Adapted, SharedInput, scaled_product

#: activation(gate, up) of shape (1, T, I) -> hidden; and, given its gradient, (hidden, d up, d gate), each (T, I).
Activation = Callable[[Tensor, Tensor], Tensor]
ActivationBackward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def never() -> bool:
    """False."""
    return False


class _FusedMlp:
    """down(activation(gate(x), up(x))) with an adapter on each of the three.

    Args:
        gate, up, down: with weights in one format.
        is_discarded: whether nobody will read the output of a call, only what its backward pass keeps: it is not
            computed then.
    """

    def __init__(
        self,
        gate: Adapted,
        up: Adapted,
        down: Adapted,
        activation: Activation,
        backward: ActivationBackward,
        *,
        is_discarded: Callable[[], bool] = never,
    ) -> None:
        self.gate, self.up, self.down = gate, up, down
        self.activation, self.activation_backward = activation, backward
        self.is_discarded = is_discarded


class GatedMlp(_FusedMlp):
    """On a base in 16 bit, without biases, with adapters of one rank.

    The weights of the layers become views of wider ones that hold their adapters too: memory grows by these alone.
    """

    def __init__(self, gate: Adapted, up: Adapted, down: Adapted, *functions: Any, **options: Any) -> None:
        super().__init__(gate, up, down, *functions, **options)
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
        """Take over the adapters as they are now; where gradients are not tracked, as in an autograd function."""
        hidden = self.down_b.shape[0]
        self.a.copy_(torch.cat([self.gate.a, self.up.a]))
        self.down_tall[hidden:].copy_(self.down.a)
        for layer, b in (
            (self.gate, self.gate_wide[:, : self.rank]),
            (self.up, self.up_wide[:, hidden:]),
            (self.down, self.down_b),
        ):
            torch.mul(layer.b, layer.scaling, out=b)

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
        if mlp.is_discarded():
            output = torch.empty_like(x)
        else:
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
            scaled_product(gate_gradient.t(), of_gate, mlp.gate.scaling),
            up_a,
            scaled_product(up_gradient.t(), of_up, mlp.up.scaling),
            down_small.t() @ inner,
            scaled_product(gradient.t(), of_down, mlp.down.scaling),
        )


class SplitGatedMlp(_FusedMlp):
    """On a base in 4 or 8 bit: products of adapters, in 16 bit, cannot ride along in its own."""

    def __init__(self, gate: Adapted, up: Adapted, down: Adapted, *functions: Any, **options: Any) -> None:
        super().__init__(gate, up, down, *functions, **options)
        self.wide, self.narrow = SharedInput([gate, up]), SharedInput([down])

    def __call__(self, x: Tensor) -> Tensor:
        """Of x of shape (..., H), the same shape."""
        adapters = (*self.wide.parameters(), *self.narrow.parameters())
        return _SplitGatedMlpFunction.apply(x.reshape(-1, x.shape[-1]), self, *adapters).view(x.shape)


class _SplitGatedMlpFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: SplitGatedMlp, *adapters: Tensor) -> Tensor:
        """The output, (T, H), of x of the same shape."""
        ctx.mlp, ctx.casts = mlp, (mlp.wide.cast(), mlp.narrow.cast())
        wide, narrow = ctx.casts
        of_x = wide.down(x)
        gate, up = wide.outputs(x, of_x)
        inner = mlp.activation(gate[None], up[None])[0]
        of_inner = narrow.down(inner)
        ctx.save_for_backward(x, of_x, gate, up, of_inner)
        return torch.empty_like(x) if mlp.is_discarded() else narrow.outputs(inner, of_inner)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of gate, up and down, from that of the output."""
        wide, narrow = ctx.casts
        x, of_x, gate, up, of_inner = ctx.saved_tensors
        narrow_down = narrow.down_gradient([gradient])
        inner_gradient = narrow.input_gradient([gradient], narrow_down)
        # The inner activations are computed again, and overwritten as soon as they are not needed.
        inner, up_gradient, gate_gradient = ctx.mlp.activation_backward(inner_gradient, gate, up)
        gradients = [gate_gradient, up_gradient]
        wide_down = wide.down_gradient(gradients)
        return (
            wide.input_gradient(gradients, wide_down) if ctx.needs_input_grad[0] else None,
            None,
            *wide.adapter_gradients(x, of_x, gradients, wide_down),
            *narrow.adapter_gradients(inner, of_inner, [gradient], narrow_down),
        )


def _move_weight(layer: nn.Linear, to: Tensor) -> None:
    """Copy a frozen weight into a part of another tensor, and let the layer use that."""
    layer.weight = nn.Parameter(to.copy_(layer.weight.detach()), requires_grad=False)

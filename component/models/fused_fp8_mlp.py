"""A gated MLP with adapters on a frozen 8-bit base, as one autograd function.

As `component.models.fused_lora.GatedMlp`, without wide products: adapters stay in 16 bit, and theirs cannot ride along.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from component.models.fused_lora import Activation, ActivationBackward, Adapted, SharedInput


class Fp8GatedMlp:
    """down(activation(gate(x), up(x))) with an adapter on each of the three.

    Args:
        gate, up, down: each on an Fp8Linear.
    """

    def __init__(
        self, gate: Adapted, up: Adapted, down: Adapted, activation: Activation, backward: ActivationBackward
    ) -> None:
        self.wide, self.narrow = SharedInput([gate, up]), SharedInput([down])
        self.activation, self.activation_backward = activation, backward

    def __call__(self, x: Tensor) -> Tensor:
        """Of x of shape (..., H), the same shape."""
        layers = (*self.wide.layers, *self.narrow.layers)
        adapters = (matrix for layer in layers for matrix in (layer.a, layer.b))
        return _Fp8GatedMlpFunction.apply(x.reshape(-1, x.shape[-1]), self, *adapters).view(x.shape)


class _Fp8GatedMlpFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: Fp8GatedMlp, *adapters: Tensor) -> Tensor:
        """The output, (T, H), of x of the same shape."""
        (gate, up), of_x = mlp.wide.outputs(x)
        inner = mlp.activation(gate[None], up[None])[0]
        (output,), of_inner = mlp.narrow.outputs(inner)
        ctx.mlp = mlp
        ctx.save_for_backward(x, of_x, gate, up, of_inner)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of gate, up and down, from that of the output."""
        wide, narrow = ctx.mlp.wide, ctx.mlp.narrow
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

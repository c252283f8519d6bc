"""LoRA around frozen weights in few passes over the activations: projections of one input, as autograd functions.

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

from component.models.fp8_linear import as_format, input_gradient, linear_products


class FourBitBase:
    """A frozen 4-bit layer as one whose weight is restored whenever it is read.

    What was read holds until the weight of any such layer is read: all may come into one buffer. So each reading is
    used up, in one product, before the next.

    Args:
        layer: bitsandbytes' Linear4bit.
        restore: makes 16-bit numbers of its weight and that weight's `quant_state`.
    """

    def __init__(self, layer: Any, restore: Callable[[Tensor, Any], Tensor]) -> None:
        self._layer, self._restore = layer, restore
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_dtype: torch.dtype = layer.weight.quant_state.dtype

    @property
    def weight(self) -> Tensor:
        """(O, I), until the next reading."""
        return self._restore(self._layer.weight, self._layer.weight.quant_state)

    @property
    def bias(self) -> Tensor | None:
        """In the format of the computation, (O,)."""
        return as_format(self._layer.bias, self.compute_dtype)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A frozen linear layer with one adapter.

    Attributes:
        base: its weight has shape (O, I).
        down, up: the adapter's layers, whose weights A (r, I) and B (O, r) are in a number format of their own.
        scaling: of the adapter's product.
    """

    base: nn.Linear | FourBitBase
    down: nn.Linear
    up: nn.Linear
    scaling: float

    @property
    def a(self) -> nn.Parameter:
        """A as it is now: loading an adapter may put another parameter in its place."""
        return self.down.weight

    @property
    def b(self) -> nn.Parameter:
        """B, likewise."""
        return self.up.weight

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]

    @property
    def has_16bit_weights(self) -> bool:
        """Whether the base is a plain layer, whose weights may be moved."""
        return getattr(self.base, "compute_dtype", None) is None

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        own = getattr(self.base, "compute_dtype", None)
        return self.base.weight.dtype if own is None else own

    def empty(self, *shape: int) -> Tensor:
        """A tensor beside the adapter, in the format of the computation."""
        return torch.empty(*shape, dtype=self.dtype, device=self.a.device)


class SharedInput:
    """Projections of one input, such as query, key and value.

    Args:
        layers: with weights in one format.
    """

    def __init__(self, layers: Sequence[Adapted]) -> None:
        self.layers = tuple(layers)
        self.bases = tuple(layer.base for layer in layers)
        self.ranks = [layer.rank for layer in layers]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs, each of shape (..., O), of x of shape (..., I)."""
        outputs = _SharedInputFunction.apply(x.reshape(-1, x.shape[-1]), self, *self.parameters())
        return tuple(output.view(*x.shape[:-1], output.shape[-1]) for output in outputs)

    def parameters(self) -> Iterator[Tensor]:
        """A and B, layer by layer."""
        for layer in self.layers:
            yield layer.a
            yield layer.b

    def cast(self) -> Cast:
        """The adapters as they are now; where gradients are not tracked, as in an autograd function."""
        a = torch.cat([layer.a for layer in self.layers]).to(self.layers[0].dtype)
        b = [torch.mul(layer.b, layer.scaling, out=layer.empty(*layer.b.shape)) for layer in self.layers]
        return Cast(self, a, b)


@dataclass(frozen=True, eq=False)
class Cast:
    """The adapters of one input in the format of the computation: they live as long as a pass needs them.

    Attributes:
        a: all A one below the other, (sum of ranks, I).
        b: s B of each layer, (O, r).
    """

    group: SharedInput
    a: Tensor
    b: Sequence[Tensor]

    def down(self, x: Tensor) -> Tensor:
        """x of shape (T, I) times all A, (T, sum of ranks)."""
        return x @ self.a.t()

    def outputs(self, x: Tensor, down: Tensor) -> list[Tensor]:
        """All outputs, (T, O) each."""
        outputs = linear_products(self.group.bases, x)
        for output, b, part in zip(outputs, self.b, self._columns(down), strict=True):
            output.addmm_(part, b.t())
        return outputs

    def down_gradient(self, gradients: Sequence[Tensor]) -> Tensor:
        """The gradient of x times all A from those of the outputs."""
        result = self.a.new_empty(gradients[0].shape[0], self.a.shape[0])
        for gradient, b, part in zip(gradients, self.b, self._columns(result), strict=True):
            torch.mm(gradient, b, out=part)
        return result

    def input_gradient(self, gradients: Sequence[Tensor], of_down: Tensor) -> Tensor:
        """The gradient of x, (T, I)."""
        return input_gradient(self.group.bases, gradients).addmm_(of_down, self.a)

    def adapter_gradients(
        self, x: Tensor, down: Tensor, gradients: Sequence[Tensor], of_down: Tensor
    ) -> Iterator[Tensor]:
        """Those of A and B, layer by layer."""
        of_a = (of_down.t() @ x).split_with_sizes(self.group.ranks)
        for layer, mine, gradient, part in zip(self.group.layers, of_a, gradients, self._columns(down), strict=True):
            yield mine
            yield scaled_product(gradient.t(), part, layer.scaling)

    def _columns(self, stacked: Tensor) -> tuple[Tensor, ...]:
        """The part of each layer of a tensor of shape (T, sum of ranks)."""
        return stacked.split_with_sizes(self.group.ranks, dim=1)


class _SharedInputFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SharedInput, *adapters: Tensor) -> tuple[Tensor, ...]:
        """All outputs, (T, O) each, of x of shape (T, I)."""
        ctx.cast = cast = group.cast()
        down = cast.down(x)
        ctx.save_for_backward(x, down)
        return tuple(cast.outputs(x, down))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of x and of A and B of each layer, from those of the outputs."""
        cast: Cast = ctx.cast
        x, down = ctx.saved_tensors
        of_down = cast.down_gradient(gradients)
        of_x = cast.input_gradient(gradients, of_down) if ctx.needs_input_grad[0] else None
        return of_x, None, *cast.adapter_gradients(x, down, gradients, of_down)


def scaled_product(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """scale (one @ other), scaled before it is rounded."""
    product = one.new_empty(one.shape[0], other.shape[1])
    return product.addmm_(one, other, beta=0, alpha=scale)

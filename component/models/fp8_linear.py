"""A frozen linear layer in 8-bit floats, with matrix products on the tensor cores for them.

Weights have one scale for each output feature, activations and gradients one for each token, found anew in every pass
("rowwise" scaling): a product of 8-bit numbers is scaled back by row and column. In the backward pass the weights'
scales lie along the sum, so the gradient is multiplied by them before it is rounded, and one copy of the weights
serves both directions. Numbers are e4m3 throughout (https://arxiv.org/abs/2209.05433).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType

DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
#: Sides of matrices that the tensor cores take are multiples of this.
MULTIPLE = 16
#: Numbers of a row that the kernel for rounding takes.
LONGEST_ROW = 2**16
#: Rows below it are 0 whatever their scale; it keeps the scale from being 0.
SMALLEST = 1e-12


def takes(layer: nn.Linear) -> bool:
    """Whether a layer's sides suit the tensor cores."""
    return all(side % MULTIPLE == 0 for side in layer.weight.shape)


class Fp8Linear(nn.Linear):
    """Computes from 8-bit weights in the format of its input; frozen.

    Args:
        weight: of 16 bit or more, shape (O, I).
        bias: shape (O,), None without.
    """

    compute_dtype = torch.bfloat16

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        values, scale = quantize_rows(weight)
        self.weight = nn.Parameter(values, requires_grad=False)
        #: (O, 1), float32; Unsloth's kernels, which do without autograd here, read it by this name.
        self.register_buffer("weight_scale", scale)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Of x of shape (..., I), the result (..., O) in x's format, that of autocast inside it."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        output = _Fp8Product.apply(x.reshape(-1, self.in_features), self).view(*x.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias.to(output.dtype)

    def product(self, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """x W^T without the bias, (T, O), of an x that `quantize_rows` has rounded."""
        return _scaled_product(values, self.weight.t(), scale, self.weight_scale.t(), dtype)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """dy W, (T, I), of dy of shape (T, O)."""
        values, scale = quantize_rows(gradient, self.weight_scale)
        ones = scale.new_ones(1, self.in_features)
        return _scaled_product(values, transposed(self.weight).t(), scale, ones, gradient.dtype)

    def dequantized(self) -> Tensor:
        """The weights that it computes with, float32, (O, I)."""
        return self.weight.float() * self.weight_scale


class _Fp8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Fp8Linear) -> Tensor:
        """x W^T, (T, O), of x of shape (T, I)."""
        ctx.layer = layer
        return layer.product(*quantize_rows(x), x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """dy W."""
        return ctx.layer.input_gradient(gradient), None


def linear_products(layers: Sequence[nn.Linear], x: Tensor) -> list[Tensor]:
    """x W^T + bias of several layers of one kind, (T, O) each, of x of shape (T, I)."""
    if not isinstance(layers[0], Fp8Linear):
        return [functional.linear(x, layer.weight, as_format(layer.bias, x.dtype)) for layer in layers]
    rounded = quantize_rows(x)
    products = [layer.product(*rounded, x.dtype) for layer in layers]
    for layer, product in zip(layers, products, strict=True):
        if layer.bias is not None:
            product += layer.bias
    return products


def as_format(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bias in the format of the computation; checkpoints may keep it in another than weights."""
    return None if bias is None else bias.to(dtype)


def input_gradient(layers: Sequence[nn.Linear], gradients: Sequence[Tensor]) -> Tensor:
    """The gradient of x in `linear_products`, (T, I), from those of its results."""
    if isinstance(layers[0], Fp8Linear):
        first, *rest = (layer.input_gradient(each) for layer, each in zip(layers, gradients, strict=True))
        for other in rest:
            first += other
        return first
    total = gradients[0] @ layers[0].weight
    for layer, gradient in zip(layers[1:], gradients[1:], strict=True):
        total.addmm_(gradient, layer.weight)
    return total


def quantize_rows(x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8-bit floats, each row by a scale of its own.

    Args:
        x: (T, I).
        factors: (I, 1), of its columns, multiplied in before rounding.

    Returns:
        Values (T, I) and scales (T, 1), float32: their product is x.
    """
    if x.device.type == "cuda" and x.shape[1] <= LONGEST_ROW:
        from component.models.fp8_kernels import round_rows

        return round_rows(x.contiguous(), factors, largest=LARGEST, smallest=SMALLEST)
    wide = x.float() if factors is None else x.float() * factors.view(1, -1)
    scale = wide.abs().amax(1, keepdim=True).clamp(min=SMALLEST) / LARGEST
    return (wide / scale).clamp(-LARGEST, LARGEST).to(DTYPE), scale


def transposed(weight: Tensor) -> Tensor:
    """A transposed copy; the tensor cores read both matrices along the sum."""
    if weight.device.type != "cuda":
        return weight.t().contiguous()
    from component.models.fp8_kernels import transpose

    return transpose(weight.view(torch.uint8)).view(DTYPE)


def _scaled_product(one: Tensor, other: Tensor, of_rows: Tensor, of_columns: Tensor, dtype: torch.dtype) -> Tensor:
    # bfloat16 is all that kernels for such scales write.
    return functional.scaled_mm(
        one, other, of_rows, ScalingType.RowWise, of_columns, ScalingType.RowWise,
        output_dtype=Fp8Linear.compute_dtype, use_fast_accum=True,
    ).to(dtype)  # fmt: skip

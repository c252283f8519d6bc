"""A frozen 16-bit linear layer that stands for a 4-bit one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class DequantizedLinear(nn.Linear):
    """Computes as bitsandbytes' Linear4bit does, from a weight that was dequantized before.

    Args:
        weight: in the number format of the computation, shape (out, in).
        bias: shape (out,), None without.
    """

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """The result has the format of the input, shape (..., out), whatever the computation's is."""
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return functional.linear(x.to(self.weight.dtype), self.weight, bias).to(x.dtype)

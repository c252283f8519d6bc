"""Plain operations that fused adapters are held to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def layer_of(weight: Tensor) -> nn.Linear:
    """A layer with a weight that is trained, (out, in)."""
    layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer


def silu_gated(gate: Tensor, up: Tensor) -> Tensor:
    """An MLP's activation."""
    return functional.silu(gate) * up


def silu_gated_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden numbers, and the gradients of up and gate, as Unsloth's kernel gives them."""
    with torch.enable_grad():
        gate, up = gate.detach().requires_grad_(), up.detach().requires_grad_()
        hidden = silu_gated(gate, up)
        of_gate, of_up = torch.autograd.grad(hidden, (gate, up), gradient)
    return hidden.detach(), of_up, of_gate

"""What the trial of fused adapters sees in each number format."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from component.models.fused_check import why_different

#: Small, as outputs of MLPs in half-precision models are.
FACTOR = 1e-3


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return FACTOR * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * FACTOR * gradient


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wrong_gradient_is_seen(dtype: torch.dtype) -> None:
    """In float16 too, whose smallest number is 6e-8."""
    compare = {"trained": [nn.Parameter(torch.zeros(1, 1))], "width": 64, "dtype": dtype}
    assert why_different(lambda x: FACTOR * x, lambda x: FACTOR * x, **compare) is None
    assert "by 100.0%" in (why_different(_WrongGradient.apply, lambda x: FACTOR * x, **compare) or "")


def test_adapters_are_random_in_the_trial_and_as_before_after_it() -> None:
    """A new adapter's B is 0, through which nothing would be seen."""
    a, b = nn.Parameter(torch.ones(4, 64)), nn.Parameter(torch.zeros(8, 4))
    compare = {"trained": [a, b], "width": 64, "dtype": torch.float32}

    def adapter(scaling: float):
        return lambda x: x[..., :8] + scaling * (x @ a.t()) @ b.t()

    assert why_different(adapter(0.5), adapter(0.5), **compare) is None
    assert why_different(adapter(0.6), adapter(0.5), **compare) is not None
    assert torch.equal(a, torch.ones(4, 64)) and torch.equal(b, torch.zeros(8, 4))
    assert a.grad is None and b.grad is None


class _TritonError(Exception):
    """In the place of Triton's, which is not installed everywhere."""


def test_a_kernel_that_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton.errors", SimpleNamespace(TritonError=_TritonError))
    for failure in (RuntimeError("Triton Error [CUDA]: no such kernel"), _TritonError("out of resources")):
        assert _tried_with(failure) == f"fused adapters fail here: {failure}"


@pytest.mark.parametrize(
    "failure",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory"),
        AssertionError("an invariant of ours"),
        AttributeError("'Fused' object has no attribute 'scalling'"),
        TypeError("forward() takes 2 positional arguments"),
    ],
)
def test_neither_a_dead_device_nor_a_defect_is_taken_for_an_obstacle(failure: Exception) -> None:
    with pytest.raises(type(failure)) as caught:
        _tried_with(failure)
    assert caught.value is failure


def _tried_with(failure: Exception) -> str | None:
    def fused(x: Tensor) -> Tensor:
        raise failure

    trained = [nn.Parameter(torch.zeros(1, 1))]
    return why_different(fused, lambda x: FACTOR * x, trained, width=64, dtype=torch.float32)

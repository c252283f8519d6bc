"""Whether fused adapters compute on this device what they replace, tried on a few random tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from component.models.failures import first_line

#: Random tokens, and the share of a norm by which results may differ: each sum is rounded to 8 bits of mantissa, in an
#: order of its own.
NUM_TOKENS, TOLERANCE = 64, 0.03


def why_different(
    fused: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    plain: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    trained: Sequence[nn.Parameter],
    *,
    width: int,
    dtype: torch.dtype,
) -> str | None:
    """Compare results, and their gradients, of an input and the parameters.

    Args:
        fused, plain: of an input of shape (1, T, width).
        trained: parameters of both, matrices: compared as they are, and random, for new adapters are half zeros.

    Raises:
        torch.OutOfMemoryError: there is no room for a few tokens.
        torch.AcceleratorError: the device does not answer any more.

    Returns:
        What is wrong with the fused one, None where nothing is.
    """
    device = trained[0].device
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(1, NUM_TOKENS, width, generator=generator, device=device).to(dtype)
    expected = _results(plain, x, trained)
    try:
        found = _results(fused, x, trained)
        with _random(trained, generator):
            expected += _results(plain, x, trained)
            found += _results(fused, x, trained)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, *_triton_failures()) as error:
        return f"fused adapters fail here: {first_line(error)}"
    worst = max(_distance(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    if worst <= TOLERANCE:
        return None
    return f"fused adapters differ from Unsloth's own by {worst:.1%} here, and rounding by no more than {TOLERANCE:.0%}"


def _triton_failures() -> tuple[type[Exception], ...]:
    """What Triton raises over a kernel that it cannot compile or that does not fit the device; without it, nothing."""
    error = getattr(sys.modules.get("triton.errors"), "TritonError", None)
    return () if error is None else (error,)


@contextmanager
def _random(matrices: Sequence[nn.Parameter], generator: torch.Generator) -> Iterator[None]:
    """Random numbers in the place of matrices, such that products with them are about as large as their input."""
    kept = [matrix.detach().clone() for matrix in matrices]
    try:
        for matrix in matrices:
            matrix.data.normal_(std=matrix.shape[1] ** -0.5, generator=generator)
        yield
    finally:
        for matrix, before in zip(matrices, kept, strict=True):
            matrix.data.copy_(before)


def _results(function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor, trained: Sequence[nn.Parameter]):
    with torch.enable_grad():
        start = x.clone().requires_grad_()
        # Unsloth may write the input's gradient over the input, which must be no leaf then.
        outputs = function(start * 1)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        # Sums: gradients of means lie where float16 has few bits left, or none.
        total = sum(output.float().square().sum() for output in outputs)
        gradients = torch.autograd.grad(total, [start, *trained], allow_unused=True)
    return [output.detach() for output in outputs] + [
        torch.zeros_like(parameter) if gradient is None else gradient
        for gradient, parameter in zip(gradients, [start, *trained], strict=True)
    ]


def _distance(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over that of the second; NaN counts as far away."""
    norm = other.float().norm()
    distance = (one.float() - other.float()).norm() / norm.clamp(min=torch.finfo(torch.float32).tiny)
    return float(distance.nan_to_num(float("inf")))

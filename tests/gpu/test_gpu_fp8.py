"""Kernels for 8-bit floats against the plain torch operations that they stand for, and a layer against float64."""

from __future__ import annotations

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs fp8 tensor cores"
    ),
]


@pytest.mark.parametrize("width", [16, 1024, 4096, 14336])
@pytest.mark.parametrize("has_factors", [False, True])
def test_rows_are_rounded_as_on_the_cpu(width: int, has_factors: bool) -> None:
    from component.models.fp8_linear import quantize_rows

    torch.manual_seed(0)
    x = torch.randn(67, width).to(torch.bfloat16) * torch.logspace(-3, 3, 67).view(-1, 1).to(torch.bfloat16)
    x[5] = 0
    factors = torch.rand(width, 1) if has_factors else None
    values, scales = quantize_rows(x.cuda(), None if factors is None else factors.cuda())
    expected, expected_scales = quantize_rows(x, factors)
    torch.testing.assert_close(scales.cpu(), expected_scales, rtol=1e-6, atol=0)
    # Quotients may round to the neighbour: one unit in the last place of three bits.
    mine, theirs = values.cpu().float(), expected.float()
    assert ((mine - theirs).abs() <= theirs.abs() / 8 + 2**-9).all()
    assert (mine != theirs).float().mean() < 0.01


def test_what_is_no_number_stays_none() -> None:
    from component.models.fp8_linear import quantize_rows

    x = torch.ones(2, 64, device="cuda", dtype=torch.bfloat16)
    x[1, 3] = float("nan")
    values, _ = quantize_rows(x)
    assert values.float().isnan().sum() == 1 and values[1, 3].float().isnan()


@pytest.mark.parametrize("shape", [(128, 128), (48, 4096), (4096, 1040)])
def test_a_transposed_copy(shape: tuple[int, int]) -> None:
    from component.models.fp8_linear import DTYPE, transposed

    weight = torch.randn(shape, device="cuda").to(DTYPE)
    assert torch.equal(transposed(weight).view(torch.uint8), weight.view(torch.uint8).t())


def test_a_layer_and_its_gradient() -> None:
    from component.models.fp8_linear import Fp8Linear, quantize_rows

    torch.manual_seed(0)
    layer = Fp8Linear(torch.randn(512, 256, device="cuda", dtype=torch.bfloat16), None)
    x = torch.randn(300, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    output = layer(x)
    gradient = torch.randn_like(output)
    output.backward(gradient)

    def rounded(matrix: torch.Tensor, factors: torch.Tensor | None = None) -> torch.Tensor:
        values, scale = quantize_rows(matrix, factors)
        return values.double() * scale.double()

    expected = rounded(x.detach()) @ layer.dequantized().double().t()
    of_x = rounded(gradient, layer.weight_scale) @ layer.weight.double()
    for mine, theirs in ((output, expected), (x.grad, of_x)):
        assert (mine.double() - theirs).norm() / theirs.norm() < 2**-8

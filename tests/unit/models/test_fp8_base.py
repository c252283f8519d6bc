"""Frozen layers in 8-bit floats: products and gradients against float64 on the rounded numbers, and loading."""

from __future__ import annotations

import pytest
import torch
from plain_layers import layer_of, silu_gated, silu_gated_backward
from torch import Tensor, nn

from component.config.errors import UserError
from component.config.load import load_config
from component.models.fp8_base import check_fp8_base, leave_to_each_process, round_base
from component.models.fp8_linear import LARGEST, Fp8Linear, quantize_rows
from component.models.fused_lora import Adapted, SharedInput
from component.models.fused_mlp import SplitGatedMlp
from component.models.precision import Precision
from component.runtime.hardware import Hardware

HIDDEN, INNER, RANK, TOKENS = 32, 64, 16, 48
#: Of e4m3, three bits of mantissa: half a unit in the last place.
ROUNDING = 2**-4
#: The products' own result is bfloat16.
OUTPUT_ROUNDING = 2**-8


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def rounded(x: Tensor, factors: Tensor | None = None) -> Tensor:
    values, scale = quantize_rows(x, factors)
    return values.double() * scale.double()


def test_rows_are_rounded_by_scales_of_their_own() -> None:
    x = draw(5, 300) * torch.tensor([1e-4, 1, 30, 1e3, 0]).view(-1, 1)
    values, scale = quantize_rows(x)
    assert values.float().abs().amax(1).tolist() == [LARGEST] * 4 + [0]
    error = (values.double() * scale - x.double()).abs()
    subnormal = scale.double() * 2**-10
    assert (error <= x.double().abs() * ROUNDING * (1 + 1e-5) + subnormal).all()


def test_a_product_and_its_gradient_are_those_of_the_rounded_numbers() -> None:
    layer = Fp8Linear(draw(INNER, HIDDEN), nn.Parameter(draw(INNER, seed=3), requires_grad=False))
    x = draw(TOKENS, HIDDEN, seed=1).requires_grad_()
    output = layer(x)
    gradient = draw(TOKENS, INNER, seed=2)
    output.backward(gradient)
    expected = rounded(x.detach()) @ layer.dequantized().double().t()
    assert_near(output.detach() - layer.bias, expected)
    assert layer(x[:0, None]).shape == (0, 1, INNER)
    # The weights' scales are in the gradient, before it is rounded.
    assert_near(x.grad, rounded(gradient, layer.weight_scale) @ layer.weight.double())


def test_the_noise_is_that_of_three_bits() -> None:
    """The bound: two factors, each rounded by a relative error spread evenly within +-2^-4."""
    layer = Fp8Linear(draw(256, 512), None)
    x = draw(128, 512, seed=1)
    exact = x.double() @ draw(256, 512).double().t()
    noise = (layer(x).double() - exact).norm() / exact.norm()
    assert 0.02 < noise < 2**0.5 * ROUNDING / 3**0.5


@pytest.mark.parametrize("bias", [False, True])
def test_fused_projections_are_those_of_their_layers(bias: bool) -> None:
    layers = [adapted(HIDDEN, size, seed=size, bias=bias) for size in (32, 16, 16)]
    compare(SharedInput(layers), lambda x: [plain(layer, x) for layer in layers], layers)


def test_a_fused_mlp_is_that_of_its_layers() -> None:
    gate, up, down = adapted(HIDDEN, INNER, seed=1), adapted(HIDDEN, INNER, seed=2), adapted(INNER, HIDDEN, seed=3)
    mlp = SplitGatedMlp(gate, up, down, silu_gated, silu_gated_backward)
    expected = lambda x: [plain(down, silu_gated(plain(gate, x), plain(up, x)))]  # noqa: E731
    compare(lambda x: [mlp(x)], expected, [gate, up, down])


def test_what_is_no_linear_layer_is_said() -> None:
    """Experts, in one tensor of three dimensions, and the layers of GPT-2, which are none of torch's."""
    from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

    experts = MixtralConfig(vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16,
                            num_attention_heads=2, num_key_value_heads=2, num_local_experts=2)  # fmt: skip
    notice = round_base(MixtralForCausalLM(experts).requires_grad_(False))
    assert notice == "fp8_base: the experts stay in 16 bit (4 tensors), they are no linear layers"
    none = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=2))
    with pytest.raises(UserError, match="fp8_base: no layer of this gpt2 model is a linear one"):
        round_base(none.requires_grad_(False))


def test_several_processes_do_not_send_rounded_layers_around() -> None:
    """gloo would fail on their format."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    model = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), Fp8Linear(draw(INNER, HIDDEN), None))
    leave_to_each_process(model)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        parallel(draw(TOKENS, HIDDEN).float()).sum().backward()
    finally:
        distributed.destroy_process_group()
    assert parallel.modules_buffers == [] and model[0].weight.grad is not None


def test_a_loaded_model_is_rounded_where_it_is_frozen(tmp_path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    model = LlamaForCausalLM(config).requires_grad_(False)
    model.model.layers[1].self_attn.q_proj.weight.requires_grad_(True)
    notice = round_base(model)
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    # 40 is no multiple of 16: three of each layer's projections stay.
    assert notice == "fp8_base: 6 linear layers stay in 16 bit, their sides are no multiples of 16"
    assert sum(kind is Fp8Linear for kind in kinds.values()) == 7
    assert kinds["lm_head"] is nn.Linear and kinds["model.layers.1.self_attn.q_proj"] is nn.Linear


@pytest.mark.parametrize(
    ("capability", "compute", "what"),
    [
        ((8, 0), "bfloat16", "needs an NVIDIA GPU of compute capability 8.9 or more, and test card has 8.0"),
        ((9, 0), "float16", "products of 8-bit floats come out in bfloat16, and the run computes in float16"),
        ((9, 0), "bfloat16", None),
    ],
)
def test_the_card_must_multiply_them(repository, capability, compute, what) -> None:
    config = load_config(repository / "train_args/demo/sft-qlora.json", ["train_mode=lora", "fp8_base=true"])
    hardware = Hardware("cuda", "test card", 2**36, 2**36, capability, True, 1)
    precision = Precision("bfloat16", compute, compute == "bfloat16", compute == "float16", ())
    if what is None:
        check_fp8_base(config.model, hardware, precision)
    else:
        with pytest.raises(UserError, match=what):
            check_fp8_base(config.model, hardware, precision)


def adapted(size_in: int, size_out: int, *, seed: int, bias: bool = False) -> Adapted:
    offset = nn.Parameter(draw(size_out, seed=seed + 5), requires_grad=False) if bias else None
    base = Fp8Linear(draw(size_out, size_in, seed=seed) / size_in**0.5, offset)
    a, b = draw(RANK, size_in, seed=seed + 1), draw(size_out, RANK, seed=seed + 2)
    return Adapted(base, layer_of(a / size_in**0.5), layer_of(b / RANK**0.5), 0.5)


def plain(layer: Adapted, x: Tensor) -> Tensor:
    return layer.base(x) + layer.scaling * (x @ layer.a.t()) @ layer.b.t()


def compare(mine, theirs, layers: list[Adapted]) -> None:
    """Outputs and gradients of both; adapters' sums are rounded to bfloat16 at other places, so within its noise."""
    for one, other in zip(results(mine, layers), results(theirs, layers), strict=True):
        error = (one.double() - other.double()).norm() / other.double().norm()
        assert error < 4 * OUTPUT_ROUNDING + ROUNDING / 4


def results(function, layers: list[Adapted]) -> list[Tensor]:
    x = draw(2, TOKENS // 2, HIDDEN, seed=9).requires_grad_()
    outputs = function(x)
    weights = [draw(*output.shape, seed=8) for output in outputs]
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    inputs = [x, *(matrix for layer in layers for matrix in (layer.a, layer.b))]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, inputs)]


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert (actual.double() - expected).norm() / expected.norm() < OUTPUT_ROUNDING

"""The kernels that packed rows run on, on a GPU: within the measured noise of 16-bit arithmetic, exact in float32."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
import transformers

from component.data.collators import PackingCollator, PaddingCollator
from component.data.packing import pack
from component.models.attention import choose_attention, head_shape, settle_attention
from component.models.kernel_check import CheckedKernel, HeadShape, check_kernels
from component.models.packed_attention import FLASH_ATTN, FLEX, VARLEN, probe_leak
from component.models.padded_rows import settle_cudnn
from component.models.varlen_attention import NAME, register_varlen
from component.models.varlen_kernel import Segments, VarlenKernel
from component.runtime.hardware import detect_hardware

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: A packed row may be this many times as far from float32 as the samples alone are, in the same number format.
NOISE_FACTOR = 1.5
#: float32 in another order: nats, and the norm of the gradients' difference over their norm.
FLOAT32_LOSS, FLOAT32_GRADIENT = 1e-5, 1e-4
VOCABULARY = 256
WINDOW = 24
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.1, "pad_token_id": 0,
    "sliding_window": WINDOW,
}  # fmt: skip
LAYERS = {"layer_types": ["sliding_attention", "full_attention"] * 2}
#: A cap of 50 would not show at scores this small.
CAP = {"attn_logit_softcapping": 1.0, "final_logit_softcapping": None}
FAMILIES = {
    "llama": ("Llama", "Llama", {}),
    "mistral": ("Mistral", "Mistral", {}),
    "qwen3": ("Qwen3", "Qwen3", {}),
    "gemma2": ("Gemma2", "Gemma2", {**LAYERS, **CAP}),
    "gemma3": ("Gemma3Text", "Gemma3", LAYERS),
}
LENGTHS = (17, 140, 3, 125, 256, 2, 31, 90, 200, 64)

HEADS = {
    "many heads": (HeadShape(8, 8, 64), VARLEN),
    "grouped heads": (HeadShape(8, 2, 64), VARLEN),
    "Llama 3 8B": (HeadShape(32, 8, 128), VARLEN),
    "one key head": (HeadShape(8, 1, 256), VARLEN),
    "odd groups": (HeadShape(14, 2, 64), VARLEN),
    "window": (HeadShape(8, 8, 128, window=4096), VARLEN),
    "grouped heads and window": (HeadShape(32, 8, 128, window=4096), VARLEN),
    "Gemma 2 9B": (HeadShape(16, 8, 256, window=4096, cap=1.0), FLEX),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("heads", HEADS)
def test_the_kernel_is_within_rounding_of_float64(heads: str, dtype: str) -> None:
    """Output and gradients, two samples in a row; a kernel that is not would be refused, and says why."""
    shape, kernel = HEADS[heads]
    checked = check_kernels(shape, dtype=dtype, device="cuda:0")
    assert isinstance(checked, CheckedKernel), checked
    print(f"{heads} {dtype}: {checked.name}, error {checked.error:.2g}, {checked.reason}")
    assert checked.name == kernel


@pytest.mark.parametrize("length", [256, 2048])
def test_samples_of_one_length_are_computed_as_a_dense_batch(length: int) -> None:
    """cuDNN's attention, output and gradients, against the variable-length kernel."""
    checked = check_kernels(HeadShape(32, 8, 128), dtype="bfloat16", device="cuda:0")
    assert isinstance(checked.kernel, VarlenKernel) and checked.kernel.has_dense_rows
    boundaries = torch.arange(0, 4 * length + 1, length, dtype=torch.int32, device="cuda")
    inputs = [torch.randn(4 * length, heads, 128, dtype=torch.bfloat16, device="cuda") for heads in (32, 8, 8)]

    def results(kernel: VarlenKernel) -> list[torch.Tensor]:
        tensors = [tensor.clone().requires_grad_() for tensor in inputs]
        output = kernel(*tensors, Segments(boundaries, 4 * length, length, None), scale=None, cap=None)
        return [output, *torch.autograd.grad(output.square().sum(), tensors)]

    for one, other in zip(results(checked.kernel), results(replace(checked.kernel, has_dense_rows=False)), strict=True):
        assert (one - other).float().norm() <= 0.02 * other.float().norm()


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 64 * 2**30,
    reason="needs 64 GiB",
)
def test_rows_beyond_32_bits_are_computed_in_parts() -> None:
    """1,120 samples of 500 tokens, whose backward pass in one call is an illegal memory access; the last one alone."""
    checked = check_kernels(HeadShape(32, 32, 128), dtype="bfloat16", device="cuda:0")
    boundaries = torch.arange(0, 560_001, 500, dtype=torch.int32, device="cuda")
    tensors = [torch.randn(560_000, 32, 128, dtype=torch.bfloat16, device="cuda", requires_grad=True) for _ in range(3)]
    checked.kernel(*tensors, Segments(boundaries, 560_000, 500, None), scale=None, cap=None).sum().backward()
    last = [tensor.detach()[-500:].clone().requires_grad_() for tensor in tensors]
    alone = Segments(torch.tensor([0, 500], dtype=torch.int32, device="cuda"), 500, 500, None)
    checked.kernel(*last, alone, scale=None, cap=None).sum().backward()
    for one, other in zip(tensors, last, strict=True):
        assert (one.grad[-500:] - other.grad).float().norm() <= 1e-3 * other.grad.float().norm()


@dataclass(frozen=True)
class Result:
    """Loss in nats and all gradients as one vector, of all samples."""

    loss: float
    gradient: torch.Tensor

    def distance(self, other: Result) -> tuple[float, float]:
        """Difference of the losses, and norm of the gradients' difference over the other's norm."""
        gradient = (self.gradient - other.gradient).norm() / other.gradient.norm()
        return abs(self.loss - other.loss), gradient.item()


class Bench:
    """A tiny model in float32 and unequal samples, alone or in packs."""

    def __init__(self, family: str) -> None:
        config_name, model_name, more = FAMILIES[family]
        config = getattr(transformers, f"{config_name}Config")(**{**SIZES, **more})
        torch.manual_seed(0)
        self.model = getattr(transformers, f"{model_name}ForCausalLM")(config).cuda().train()
        generator = torch.Generator().manual_seed(1)
        self.samples = []
        for length in LENGTHS:
            ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
            prompt = length // 3
            self.samples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
        self.alone = [PaddingCollator(0)([sample]) for sample in self.samples]
        for batch in self.alone:
            del batch["attention_mask"]
        packs = [
            {name: [self.samples[number][name] for number in numbers] for name in ("input_ids", "labels")}
            for numbers in pack(LENGTHS, capacity=256)
        ]
        self.packed = [PackingCollator()(packs[:2]), PackingCollator()(packs[2:])]
        self.num_supervised = sum(int(batch["labels"][..., 1:].ne(-100).sum()) for batch in self.alone)

    def use(self, attention: str, dtype: str) -> None:
        """Switch the attention implementation; `varlen` with the kernel for a number format."""
        if attention == NAME:
            checked = check_kernels(head_shape(self.model.config), dtype=dtype, device="cuda:0")
            assert isinstance(checked, CheckedKernel), checked
            register_varlen(checked.kernel)
        self.model.set_attn_implementation(attention)

    def measure(self, batches: list[dict[str, torch.Tensor]], dtype: str) -> Result:
        """Sum the losses and gradients of batches."""
        num_items = torch.tensor(self.num_supervised, device="cuda")
        total = 0.0
        for batch in batches:
            batch = {name: tensor.cuda() for name, tensor in batch.items()}
            with torch.autocast("cuda", dtype=getattr(torch, dtype), enabled=dtype != "float32"):
                loss = self.model(**batch, num_items_in_batch=num_items, use_cache=False).loss
            loss.backward()
            total += loss.item()
        gradient = torch.cat([parameter.grad.flatten() for parameter in self.model.parameters()])
        self.model.zero_grad()
        return Result(total, gradient)


CASES = [
    ("llama", NAME), ("llama", "sdpa"), ("mistral", NAME), ("qwen3", NAME), ("gemma3", NAME), ("gemma2", NAME),
    ("gemma2", "eager"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_packed_equals_separate(family: str, attention: str) -> None:
    """Against the samples alone in float32 and eager attention, beside the samples alone in bfloat16."""
    bench = Bench(family)
    bench.use("eager", "float32")
    exact = bench.measure(bench.alone, "float32")
    found = {}
    bench.use(attention, "float32")
    found["packed, float32"] = bench.measure(bench.packed, "float32").distance(exact)
    for dtype in ("bfloat16", "float16"):
        bench.use(attention, dtype)
        probe = probe_leak(bench.model, range(1, 200), compute_dtype=dtype)
        assert not probe.leaks and probe.joined_change > probe.tolerance, probe
        found[f"alone, {dtype}"] = bench.measure(bench.alone, dtype).distance(exact)
        found[f"packed, {dtype}"] = bench.measure(bench.packed, dtype).distance(exact)
    bench.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found["packed, checkpointed, float16"] = bench.measure(bench.packed, "float16").distance(exact)
    print(f"{family} {attention}: {json.dumps(found)}")
    loss, gradient = found["packed, float32"]
    assert loss <= FLOAT32_LOSS and gradient <= FLOAT32_GRADIENT
    for name, dtype in (("packed, bfloat16", "bfloat16"), ("packed, float16", "float16"),
                        ("packed, checkpointed, float16", "float16")):  # fmt: skip
        (loss, gradient), (loss_noise, gradient_noise) = found[name], found[f"alone, {dtype}"]
        assert gradient <= NOISE_FACTOR * gradient_noise, name
        # A difference of sums may be small by chance; a rounding of each sample's loss is not.
        assert loss <= NOISE_FACTOR * loss_noise + torch.finfo(getattr(torch, dtype)).eps, name


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_padded_rows_and_generation_are_those_of_sdpa(family: str) -> None:
    """What is not packed goes the same way as with `sdpa`, to the bit."""
    bench = Bench(family)
    batch = PaddingCollator(0)(bench.samples[:4])
    prompts = {name: tensor[:, :16].cuda() for name, tensor in batch.items() if name != "labels"}
    results = []
    for attention in ("sdpa", NAME):
        bench.use(attention, "bfloat16")
        bench.model.eval()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            logits = bench.model(**{name: tensor.cuda() for name, tensor in batch.items()}).logits
            answers = bench.model.generate(**prompts, max_new_tokens=40, do_sample=False, eos_token_id=None)
        results.append((logits, answers))
    (logits, answers), (other_logits, other_answers) = results
    assert torch.equal(logits, other_logits) and torch.equal(answers, other_answers)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_padded_rows_need_no_mask(family: str) -> None:
    """As near to float32 and eager attention as with a mask, without cuDNN's attention."""
    bench = Bench(family)
    padded = PaddingCollator(0)(bench.samples)
    unmasked = {name: tensor for name, tensor in padded.items() if name != "attention_mask"}
    bench.use("eager", "float32")
    exact = bench.measure(bench.alone, "float32")
    bench.use("sdpa", "bfloat16")
    found = {"masked": bench.measure([padded], "bfloat16").distance(exact)}
    try:
        settle_cudnn(LENGTHS * 2 + tuple(range(1000, 1017)))
        found["unmasked"] = bench.measure([unmasked], "bfloat16").distance(exact)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
    print(f"{family}: {json.dumps(found)}")
    (loss, gradient), (masked_loss, masked_gradient) = found["unmasked"], found["masked"]
    assert gradient <= NOISE_FACTOR * masked_gradient
    assert loss <= NOISE_FACTOR * masked_loss + torch.finfo(torch.bfloat16).eps


def test_auto_settles_on_the_kernel() -> None:
    hardware = detect_hardware(use_cpu=False)
    config = transformers.LlamaConfig(**{name: size for name, size in SIZES.items() if name != "sliding_window"})
    rows = {"compute_dtype": "bfloat16", "packing": True}
    choice = settle_attention(choose_attention("auto", config, hardware, **rows), config, hardware, **rows)
    print(choice)
    assert choice.got in ("flash_attention_2", NAME)
    assert choice.packed().got in (FLASH_ATTN, VARLEN)
    config = transformers.Gemma2Config(**SIZES)
    choice = settle_attention(choose_attention("auto", config, hardware, **rows), config, hardware, **rows)
    print(choice)
    assert choice.packed().got in (FLASH_ATTN, FLEX)
    rows["compute_dtype"] = "float32"
    config = transformers.LlamaConfig(**{name: size for name, size in SIZES.items() if name != "sliding_window"})
    choice = settle_attention(choose_attention("auto", config, hardware, **rows), config, hardware, **rows)
    print(choice)
    assert choice.packed().got == FLEX

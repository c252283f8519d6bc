"""Which attention implementation is chosen where, and why."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from component.config.errors import UserError
from component.models.attention import choose_attention, settle_attention
from component.models.packed_attention import PackedAttention

without_flash = pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig

    return LlamaConfig()


CPU_REASON = "no flash_attention_2 or varlen: it needs a CUDA GPU, and this is test CPU"

#: What a torch without CUDA and a machine without triton say.
NO_KERNEL = (
    "no torch's variable-length kernel: this build of torch has no CUDA; "
    "no flex_attention with a document mask: it is compiled with triton, which is not installed"
)


@pytest.fixture(scope="module")
def gemma2():
    from transformers import Gemma2Config

    return Gemma2Config()


def test_auto_on_a_cpu_takes_sdpa_and_says_why(llama, cpu) -> None:
    choice = choose_attention("auto", llama, cpu, compute_dtype="float32", packing=False)
    assert choice.got == "sdpa"
    assert choice.reason == "no flash_attention_2: it needs a CUDA GPU, and this is test CPU"
    choice = choose_attention("auto", llama, cpu, compute_dtype="float32", packing=True)
    assert (choice.got, choice.reason) == ("sdpa", CPU_REASON)
    assert choice.packed() == PackedAttention("SDPA with a dense mask", CPU_REASON)
    assert choice.packed().notices(cpu) == []


def test_a_choice_that_needs_no_kernel_is_settled(llama, cpu) -> None:
    choice = choose_attention("auto", llama, cpu, compute_dtype="float32", packing=True)
    assert settle_attention(choice, llama, cpu, compute_dtype="float32", packing=True) == choice


@without_flash
def test_auto_on_a_gpu_without_flash_attn_takes_the_kernel_of_torch_for_packed_rows(llama, machines) -> None:
    choice = choose_attention("auto", llama, machines["ampere"], compute_dtype="bfloat16", packing=False)
    assert (choice.got, choice.reason) == ("sdpa", "no flash_attention_2: flash-attn is not installed")
    choice = choose_attention("auto", llama, machines["ampere"], compute_dtype="bfloat16", packing=True)
    assert (choice.got, choice.reason) == ("varlen", "no flash_attention_2: flash-attn is not installed")
    assert choice.packed().got == "torch's variable-length kernel"


@without_flash
@pytest.mark.skipif(torch.version.cuda is not None or find_spec("triton") is not None, reason="there may be a kernel")
def test_a_kernel_that_does_not_run_is_passed_over_with_the_reason(llama, machines) -> None:
    """The CPU build of torch stands for any torch without the kernel."""
    rows = {"compute_dtype": "bfloat16", "packing": True}
    choice = choose_attention("auto", llama, machines["ampere"], **rows)
    settled = settle_attention(choice, llama, machines["ampere"], **rows)
    assert (settled.got, settled.reason) == (
        "sdpa",
        f"no flash_attention_2: flash-attn is not installed; no varlen: {NO_KERNEL}",
    )
    asked = choose_attention("varlen", llama, machines["ampere"], **rows)
    with pytest.raises(UserError) as caught:
        settle_attention(asked, llama, machines["ampere"], **rows)
    assert caught.value.messages == (
        f"attn_implementation: varlen cannot be used: {NO_KERNEL}; use attn_implementation: auto",
    )


def test_auto_falls_to_eager_where_the_class_has_no_sdpa(cpu) -> None:
    from transformers import BloomConfig

    choice = choose_attention("auto", BloomConfig(), cpu, compute_dtype="float32", packing=False)
    assert choice.got == "eager"
    assert choice.reason == (
        "no flash_attention_2: it needs a CUDA GPU, and this is test CPU; no sdpa: BloomForCausalLM does not support it"
    )


@without_flash
def test_a_model_that_caps_its_scores_is_not_given_what_leaves_the_cap_out(gemma2, cpu, machines) -> None:
    """Gemma 2: its class names SDPA as supported, and gets uncapped attention from it."""
    no_sdpa = "no sdpa: the model caps its attention scores at 50, and it cannot"
    for packing in (False, True):
        choice = choose_attention("auto", gemma2, cpu, compute_dtype="float32", packing=packing)
        assert choice.got == "eager" and choice.reason.endswith(no_sdpa)
        with pytest.raises(UserError, match="sdpa cannot be used: the model caps its attention scores at 50"):
            choose_attention("sdpa", gemma2, machines["ampere"], compute_dtype="bfloat16", packing=packing)
    choice = choose_attention("auto", gemma2, machines["ampere"], compute_dtype="bfloat16", packing=False)
    assert choice.got == "eager" and choice.reason.endswith(no_sdpa)
    choice = choose_attention("auto", gemma2, machines["ampere"], compute_dtype="bfloat16", packing=True)
    assert choice.got == "varlen"  # a kernel that caps is found when it is settled


@pytest.mark.parametrize(
    ("family", "settings", "obstacle"),
    [
        ("Llama", {"attention_dropout": 0.1}, "the model has attention dropout (0.1), and it cannot"),
        ("DeepseekV3", {}, "the model has heads of two sizes"),
        ("Gemma4Text", {"global_head_dim": 512}, "the model's layers have heads of several shapes"),
        ("GptOss", {}, "GptOssForCausalLM does not support it"),
        ("Falcon", {}, "FalconForCausalLM does not support it"),
    ],
)
def test_what_no_kernel_does(family, settings, obstacle, machines) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(**settings)
    with pytest.raises(UserError) as caught:
        choose_attention("varlen", config, machines["ampere"], compute_dtype="bfloat16", packing=True)
    assert str(caught.value) == (
        f"attn_implementation: varlen cannot be used: {obstacle}; use attn_implementation: auto"
    )


@pytest.mark.skipif(find_spec("triton") is not None, reason="triton is installed")
def test_flex_attention_is_refused_without_its_compiler(llama, machines) -> None:
    with pytest.raises(UserError) as caught:
        choose_attention("flex_attention", llama, machines["ampere"], compute_dtype="bfloat16", packing=True)
    assert str(caught.value) == (
        "attn_implementation: flex_attention cannot be used: it is compiled with triton, which is not installed; "
        "use attn_implementation: auto"
    )


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma3Text", "Phi3", "Mixtral"])
def test_families_that_kernels_serve(family, machines) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")()
    choice = choose_attention("varlen", config, machines["ampere"], compute_dtype="float16", packing=True)
    assert (choice.got, choice.reason) == ("varlen", "as asked")


def test_slow_ways_are_told_of_on_a_gpu(machines, cpu) -> None:
    packed = PackedAttention("SDPA with a dense mask", "no varlen: because")
    assert packed.notices(cpu) == []
    assert packed.notices(machines["ampere"]) == [
        "packing: packed rows run on SDPA with a dense mask, slower than a variable-length kernel: no varlen: because"
    ]
    assert PackedAttention("torch's variable-length kernel", "").notices(machines["ampere"]) == []


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_an_explicit_choice_that_works_is_taken(llama, asked, cpu) -> None:
    choice = choose_attention(asked, llama, cpu, compute_dtype="float32", packing=False)
    assert (choice.asked, choice.got, choice.reason) == (asked, asked, "as asked")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_flex_attention_is_taken_on_a_gpu(llama, machines) -> None:
    assert (
        choose_attention("flex_attention", llama, machines["ampere"], compute_dtype="bfloat16", packing=True).got
        == "flex_attention"
    )


@pytest.mark.parametrize(
    ("asked", "hardware", "dtype", "obstacle"),
    [
        ("flex_attention", "cpu", "float32", "it has no backward pass on test CPU"),
        ("flash_attention_2", "cpu", "float32", "it needs a CUDA GPU, and this is test CPU"),
        ("flash_attention_2", "turing", "float16", "it needs compute capability 8.0, and test T4 has 7.5"),
        ("varlen", "cpu", "float32", "it needs a CUDA GPU, and this is test CPU"),
        ("varlen", "turing", "float16", "it needs compute capability 8.0, and test T4 has 7.5"),
        ("flash_attention_2", "ampere", "float32", "it computes in 16 bit, and this run in float32"),
    ],
)
def test_an_explicit_choice_that_cannot_work_is_refused(llama, asked, hardware, dtype, obstacle, machines) -> None:
    with pytest.raises(UserError) as caught:
        choose_attention(asked, llama, machines[hardware], compute_dtype=dtype, packing=False)
    assert caught.value.messages == (
        f"attn_implementation: {asked} cannot be used: {obstacle}; use attn_implementation: auto",
    )

"""Which attention implementation is chosen where, and why."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from component.config.errors import UserError
from component.models.attention import choose_attention

without_flash = pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig

    return LlamaConfig()


def test_auto_on_a_cpu_takes_sdpa_and_says_why(llama, cpu) -> None:
    choice = choose_attention("auto", llama, cpu, compute_dtype="float32")
    assert choice.got == "sdpa"
    assert choice.reason == "no FlashAttention 2: it needs a CUDA GPU, and this is test CPU"


@without_flash
def test_auto_on_a_gpu_without_flash_attn_takes_sdpa(llama, machines) -> None:
    choice = choose_attention("auto", llama, machines["ampere"], compute_dtype="bfloat16")
    assert (choice.got, choice.reason) == ("sdpa", "no FlashAttention 2: flash-attn is not installed")


def test_auto_falls_to_eager_where_the_class_has_no_sdpa(cpu) -> None:
    from transformers import BloomConfig

    choice = choose_attention("auto", BloomConfig(), cpu, compute_dtype="float32")
    assert (choice.got, choice.reason) == ("eager", "no SDPA: BloomForCausalLM does not support it")


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_an_explicit_choice_that_works_is_taken(llama, asked, cpu) -> None:
    choice = choose_attention(asked, llama, cpu, compute_dtype="float32")
    assert (choice.asked, choice.got, choice.reason) == (asked, asked, "as asked")


def test_flex_attention_is_taken_on_a_gpu(llama, machines) -> None:
    assert (
        choose_attention("flex_attention", llama, machines["ampere"], compute_dtype="bfloat16").got == "flex_attention"
    )


@pytest.mark.parametrize(
    ("asked", "hardware", "dtype", "obstacle"),
    [
        ("flex_attention", "cpu", "float32", "it has no backward pass on test CPU"),
        ("flash_attention_2", "cpu", "float32", "it needs a CUDA GPU, and this is test CPU"),
        ("flash_attention_2", "turing", "float16", "it needs compute capability 8.0, and test T4 has 7.5"),
        ("flash_attention_2", "ampere", "float32", "it computes in 16 bit, and this run in float32"),
    ],
)
def test_an_explicit_choice_that_cannot_work_is_refused(llama, asked, hardware, dtype, obstacle, machines) -> None:
    with pytest.raises(UserError) as caught:
        choose_attention(asked, llama, machines[hardware], compute_dtype=dtype)
    assert caught.value.messages == (
        f"attn_implementation: {asked} cannot be used: {obstacle}; use attn_implementation: auto",
    )

"""The implementation "varlen" behind transformers' interface: where samples begin, and what it does without a kernel.

The kernel itself needs a GPU: tests/gpu/test_gpu_varlen.py.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask, sdpa_mask

from component.config.errors import UserError
from component.models.attention import choose_attention
from component.models.tiny_families import TINY_FAMILIES, build_family_config, build_family_model
from component.models.varlen_attention import NAME, attend, build_mask, find_segments, register_varlen
from component.models.varlen_kernel import Segments, sample_mask

#: Samples of 3, 1 and 4 tokens.
POSITIONS = [0, 1, 2, 0, 0, 1, 2, 3]


@pytest.fixture(scope="module")
def config() -> transformers.PretrainedConfig:
    register_varlen(None)
    config = transformers.MistralConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, vocab_size=50,
        intermediate_size=32, sliding_window=2,
    )  # fmt: skip
    config._attn_implementation = NAME
    return config


def make_mask(create, config, positions, attention_mask=None):
    """A mask as the models make theirs, for rows of these positions."""
    position_ids = torch.tensor(positions)
    embeddings = torch.zeros(*position_ids.shape, config.hidden_size)
    return create(config, embeddings, attention_mask, None, position_ids)


def test_packed_rows_get_segments_in_place_of_a_mask(config) -> None:
    segments = make_mask(create_causal_mask, config, [POSITIONS])
    assert isinstance(segments, Segments)
    assert segments.boundaries.dtype == torch.int32
    assert (segments.boundaries.tolist(), segments.max_length, segments.window) == ([0, 3, 4, 8], 4, None)


def test_a_sliding_window_is_part_of_the_segments(config) -> None:
    segments = make_mask(create_sliding_window_causal_mask, config, [POSITIONS])
    assert (segments.boundaries.tolist(), segments.max_length, segments.window) == ([0, 3, 4, 8], 4, 2)


def test_samples_end_with_their_row(config) -> None:
    """The second row begins at a position that would follow the first row's last."""
    segments = make_mask(create_causal_mask, config, [POSITIONS, [4, 5, 6, 7, 8, 0, 1, 2]])
    assert (segments.boundaries.tolist(), segments.max_length) == ([0, 3, 4, 8, 13, 16], 5)


def test_rows_that_are_not_packed_get_the_mask_of_sdpa(config) -> None:
    assert make_mask(create_causal_mask, config, [list(range(8))]) is None
    padded = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8])
    mask = make_mask(create_causal_mask, config, [list(range(8))] * 2, padded)
    assert torch.equal(mask, sdpa_mask(2, 8, 8, attention_mask=padded.bool()))
    window = make_mask(create_sliding_window_causal_mask, config, [list(range(8))])
    assert window.shape == (1, 1, 8, 8) and window[0, 0].sum(-1).tolist() == [1, 2, 2, 2, 2, 2, 2, 2]


def test_a_condition_of_the_models_own_stays_a_mask(config) -> None:
    """One that transformers maps over, and one that lets tokens see what comes after them."""
    arguments = {"attention_mask": None, "allow_is_causal_skip": False}
    mask = build_mask(1, 4, 4, mask_function=lambda b, h, q, k: k <= q, use_vmap=True, **arguments)
    assert mask.shape == (1, 1, 4, 4)
    mask = build_mask(1, 4, 4, mask_function=lambda b, h, q, k: k <= q + 1, **arguments)
    assert mask[0, 0].sum(-1).tolist() == [2, 3, 4, 4]
    assert find_segments(lambda b, h, q, k: k <= q + 1, 1, 4, window=None, device="cpu") is None


def test_the_dense_mask_of_segments_is_the_one_of_transformers(config) -> None:
    for create, window in ((create_causal_mask, None), (create_sliding_window_causal_mask, 2)):
        rows = [POSITIONS, [0, 1, 0, 1, 2, 3, 4, 0]]
        segments = make_mask(create, config, rows)
        assert segments.window == window
        config._attn_implementation = "sdpa"
        expected = make_mask(create, config, rows)
        config._attn_implementation = NAME
        assert torch.equal(sample_mask(segments, rows=2), expected)


#: Families with an architecture that no kernel serves -> why.
NOT_SERVED = {
    "bloom": "BloomForCausalLM does not support it",
    "glm4_moe_lite": "the model has heads of two sizes",
    "gpt_oss": "GptOssForCausalLM does not support it",
    "minicpm3": "the model has heads of two sizes",
    "qwen3_5": "Qwen3_5ForCausalLM does not support it",
}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_without_a_kernel_it_computes_what_dense_masks_do(family: str, machines) -> None:
    """Packed rows, two at once, and padded ones; output and gradients equal to SDPA's, or to those of capped scores."""
    register_varlen(None)
    torch.manual_seed(0)
    model_config = build_family_config(family, vocab_size=50, token_ids={"pad_token_id": 0})
    text_config = model_config.get_text_config()
    if getattr(text_config, "sliding_window", None):
        text_config.sliding_window = 3
    if family == "gemma2":
        text_config.attn_logit_softcapping = 0.5  # a cap of 50 would not show
    try:
        choose_attention("varlen", model_config, machines["ampere"], compute_dtype="bfloat16", packing=True)
    except UserError as error:
        assert f"varlen cannot be used: {NOT_SERVED[family]}" in str(error)
        return
    assert family not in NOT_SERVED
    model = build_family_model(model_config, seed=0).train()
    ids = torch.randint(1, 50, (2, 8))
    packed = {"input_ids": ids, "position_ids": torch.tensor([POSITIONS, [0, 1, 0, 1, 2, 3, 4, 0]])}
    padded = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8])}
    for batch in (packed, padded):
        results = []
        for implementation in ("eager" if family == "gemma2" else "sdpa", NAME):
            model.set_attn_implementation(implementation)
            logits = model(**batch, use_cache=False).logits
            logits.square().mean().backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            results.append([logits, *gradients])
            model.zero_grad()
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


def test_a_call_without_segments_is_one_of_sdpa() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 8).unbind()
    module = torch.nn.Module()
    output, weights = attend(module, query, key, value, None, kernel=None, scaling=0.3, sliding_window=None)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    assert weights is None and torch.equal(output, expected.transpose(1, 2))

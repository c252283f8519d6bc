"""Rows padded on the right without a mask: exactly what they are with one, for every family that does without."""

from __future__ import annotations

import pytest
import torch

from component.data.collators import PaddingCollator
from component.models.padded_rows import FEW_LENGTHS, UNMASKED_FAMILIES, needs_mask, settle_cudnn
from component.models.tiny_families import TINY_FAMILIES, build_family_config, build_family_model

SAMPLES = [{"input_ids": list(range(5, 5 + size)), "labels": list(range(5, 5 + size))} for size in (23, 9, 1)]


def padded_results(model: torch.nn.Module, *, has_mask: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the real tokens, and all gradients of the loss on them."""
    batch = PaddingCollator(0)(SAMPLES)
    is_real = batch["attention_mask"].bool()
    if not has_mask:
        del batch["attention_mask"]
    model.zero_grad()
    output = model(**batch, use_cache=False)
    output.loss.backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return output.logits[is_real], torch.cat(gradients)


@pytest.mark.parametrize("family", sorted(UNMASKED_FAMILIES))
def test_a_mask_changes_nothing(family: str) -> None:
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = build_family_model(build_family_config(family, vocab_size=64, token_ids=tokens), seed=0).train()
    model.set_attn_implementation("eager" if family == "gemma2" else "sdpa")
    for ours, theirs in zip(padded_results(model, has_mask=False), padded_results(model, has_mask=True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_mask_is_left_out_where_that_is_known_to_change_nothing() -> None:
    llama = {"model_type": "llama"}
    assert not needs_mask(llama, "sdpa") and not needs_mask({**llama, "is_causal": True}, "varlen")
    assert needs_mask(llama, "eager") and needs_mask(llama, "flash_attention_2")
    others = ("mixtral", "qwen3_moe", "gpt_oss", "bloom", "gemma3", "new")
    assert all(needs_mask({"model_type": family}, "sdpa") for family in others)
    assert set(TINY_FAMILIES) >= UNMASKED_FAMILIES


@pytest.mark.parametrize(
    ("family", "looks_ahead"), [("gemma3_text", {"use_bidirectional_attention": True}), ("llama", {"is_causal": False})]
)
def test_tokens_that_look_ahead_need_one(family: str, looks_ahead: dict[str, bool]) -> None:
    """As those of embedding models do, whose config.json says so."""
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = build_family_config(family, vocab_size=64, token_ids=tokens)
    config.update(looks_ahead)
    model = build_family_model(config, seed=0).train()
    model.set_attn_implementation("sdpa")
    (ours, _), (theirs, _) = (padded_results(model, has_mask=has_mask) for has_mask in (False, True))
    assert (ours - theirs).abs().max() > 1e-3
    assert needs_mask(model.config.to_dict(), "sdpa")


def test_cudnn_is_off_where_every_batch_has_another_length() -> None:
    few, many = [128] * 1000 + list(range(1, FEW_LENGTHS)), range(FEW_LENGTHS + 1)
    try:
        assert settle_cudnn(many).startswith(f"off: rows have {FEW_LENGTHS + 1} lengths")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert settle_cudnn(few) == "where torch takes it"
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)

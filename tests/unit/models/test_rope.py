"""Stretched rotary positions: against transformers' own classes, in the saved model, and where an adapter is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from component.config.errors import UserError
from component.models.inference import load_for_inference
from component.models.rope import scale_rope

ROW = torch.arange(5, 25)[None]
YARN = {"rope_type": "yarn", "factor": 4.0}


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ROW, use_cache=False).logits


def test_linear_scaling_is_that_of_positions_divided_by_the_factor(load) -> None:
    positions = torch.arange(20)[None] / 2.0
    plain = load(train_mode="full").model.eval()
    scaled = load(train_mode="full", rope_scaling={"rope_type": "linear", "factor": 2}).model
    with torch.no_grad():
        # With a mask, positions that do not count up are not taken for those of packed samples.
        mask = torch.ones_like(ROW)
        expected = plain(ROW, attention_mask=mask, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(logits_of(scaled), expected, rtol=1e-4, atol=1e-5)


def test_a_longer_length_is_no_longer_beyond_the_model(load) -> None:
    told = "max_seq_length: 500 is beyond the 128 positions that the model was made for; rope_scaling stretches them"
    assert told in load(max_seq_length=500).notices
    assert load(max_seq_length=500, rope_scaling=YARN).notices == ()


def test_a_full_model_keeps_its_positions(load, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = load(train_mode="full", rope_scaling=YARN).model
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.max_position_embeddings == 512
    torch.testing.assert_close(logits_of(again), logits_of(model), rtol=0, atol=0)


def test_the_adapter_of_a_run_finds_them_again(load, tmp_path: Path) -> None:
    loaded = load(train_mode="lora", rope_scaling=YARN)
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "train_args.yaml").write_text("train_mode: lora\nrope_scaling: {rope_type: yarn, factor: 4.0}\n")
    again, _ = load_for_inference(str(tmp_path), device="cpu")
    torch.testing.assert_close(logits_of(again), logits_of(loaded.model), rtol=1e-5, atol=1e-6)
    (tmp_path / "train_args.yaml").write_text("train_mode: lora\n")
    plain, _ = load_for_inference(str(tmp_path), device="cpu")
    assert (logits_of(plain) - logits_of(loaded.model)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gemma3_text", "bloom"])
def test_positions_of_another_kind_are_refused(family: str) -> None:
    from component.models.tiny_families import build_family_config

    config = build_family_config(
        family, vocab_size=300, token_ids={"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    )
    with pytest.raises(UserError, match="no plain rotary positions to scale"):
        scale_rope(config, YARN)

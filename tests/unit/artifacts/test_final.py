"""What a run leaves behind can be loaded and knows when to stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from component.artifacts.final import remove_pickles, save_final_model
from component.models.tiny import Shape, build_model
from component.models.tiny_tokenizer import BOS, EOS, PAD, build_tokenizer

SHAPE = Shape(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(iter(["one two three"]), vocab_size=300, model_max_length=64)


def build(tokenizer):
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return build_model(SHAPE, seed=0, token_ids={name: getattr(tokenizer, name) for name in names}).eval()


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(20)[None], use_cache=False).logits


def generation_config(folder: Path) -> dict:
    return json.loads((folder / "generation_config.json").read_text())


def test_a_full_model_reloads_equal(tmp_path: Path, tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = build(tokenizer)
    model.config.use_cache = False  # as transformers' Trainer leaves it
    stops = [tokenizer.eos_token_id, 7, tokenizer.eos_token_id]
    assert save_final_model(model, tokenizer, tmp_path, stops) == ()
    assert model.config.use_cache is False

    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(again), logits_of(model))
    assert again.generation_config.eos_token_id == [tokenizer.eos_token_id, 7]
    assert again.generation_config.pad_token_id == tokenizer.pad_token_id
    assert again.config.use_cache is True
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
    assert not list(tmp_path.glob("*.bin"))


def test_an_adapter_reloads_equal_with_the_generation_config(tmp_path: Path, tokenizer) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
    from transformers import AutoTokenizer, GenerationConfig

    base_folder, folder = tmp_path / "base", tmp_path / "adapter"
    build(tokenizer).save_pretrained(base_folder)
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(base_folder)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    save_final_model(model, tokenizer, folder, [tokenizer.eos_token_id, 5])

    again = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits_of(again), logits_of(model))
    assert not (folder / "model.safetensors").exists()
    saved = GenerationConfig.from_pretrained(folder)
    assert (saved.eos_token_id, saved.pad_token_id) == ([tokenizer.eos_token_id, 5], tokenizer.pad_token_id)
    reloaded = AutoTokenizer.from_pretrained(folder)
    assert (reloaded.bos_token, reloaded.eos_token, reloaded.pad_token) == (BOS, EOS, PAD)
    assert reloaded.chat_template == tokenizer.chat_template


def test_sampling_values_of_the_base_do_not_stop_the_save(tmp_path: Path, tokenizer) -> None:
    model = build(tokenizer)
    model.generation_config.temperature = 0.6  # with do_sample off, as some published models have it
    (notice,) = save_final_model(model, tokenizer, tmp_path, [tokenizer.eos_token_id])
    assert notice == "generation_config: sampling values of the base model had do_sample off; saved with it on"
    saved = generation_config(tmp_path)
    assert (saved["temperature"], saved["do_sample"]) == (0.6, True)


def test_an_invalid_generation_config_does_not_stop_the_save(tmp_path: Path, tokenizer) -> None:
    model = build(tokenizer)
    model.generation_config.max_new_tokens = -5
    (notice,) = save_final_model(model, tokenizer, tmp_path, [tokenizer.eos_token_id])
    assert notice == "generation_config: the base model's own is invalid; saved with stop and pad tokens alone"
    saved = generation_config(tmp_path)
    assert (saved["eos_token_id"], saved["bos_token_id"]) == ([tokenizer.eos_token_id], tokenizer.bos_token_id)
    assert "max_new_tokens" not in saved


def test_padding_falls_back_to_a_stop_token(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(iter(["one"]), vocab_size=300, model_max_length=64)
    tokenizer.pad_token = None
    save_final_model(build(tokenizer), tokenizer, tmp_path, [9])
    assert generation_config(tmp_path)["pad_token_id"] == 9


def test_only_pickles_are_removed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "checkpoint-5", tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "training_args.bin").write_bytes(b"x")
        (folder / "optimizer.pt").write_bytes(b"x")
    removed = remove_pickles(tmp_path)
    assert removed == [tmp_path / "training_args.bin", tmp_path / "checkpoint-5" / "training_args.bin"]
    assert (tmp_path / "other" / "training_args.bin").exists()
    assert (tmp_path / "checkpoint-5" / "optimizer.pt").exists()
    assert remove_pickles(tmp_path) == []

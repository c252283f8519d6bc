"""Variants of LoRA: how they scale and start, which layers they reach, and that what is saved is what was trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from component.artifacts.final import save_final_model
from component.config.errors import UserError
from component.config.schema import AdapterSection
from component.models.loaded import LoadedModel
from component.models.quantization import four_bit_layers

ROW = torch.arange(5, 25)[None]
PLAIN = AdapterSection(lora_rank=4, lora_alpha=8)


def logits_of(model) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(ROW, use_cache=False).logits


def base_logits(model_folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return logits_of(AutoModelForCausalLM.from_pretrained(model_folder))


def train(model, steps: int = 3) -> None:
    """Some steps far enough for every trained weight to show."""
    model.train()
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5)
    for _ in range(steps):
        model(ROW, labels=ROW, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def save(loaded: LoadedModel, folder: Path) -> dict:
    save_final_model(loaded.model, loaded.tokenizer, folder, [2], moved_start=loaded.moved_start)
    return json.loads((folder / "adapter_config.json").read_text())


def reloaded(folder: Path):
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(folder)


def scale_of(model) -> float:
    return model.get_base_model().model.layers[0].self_attn.q_proj.scaling["default"]


def test_rslora_scales_by_the_root_of_the_rank(load) -> None:
    assert scale_of(load(PLAIN, train_mode="lora").model) == 8 / 4
    assert scale_of(load(replace(PLAIN, use_rslora=True), train_mode="lora").model) == 8 / math.sqrt(4)


VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa, fast": {"init_lora_weights": "pissa_niter_4"},
    "pissa, rslora and head": {"init_lora_weights": "pissa", "use_rslora": True, "modules_to_save": ["lm_head"]},
    "olora": {"init_lora_weights": "olora"},
    "mica": {"init_lora_weights": "mica"},
    "embeddings and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "layers": {"layers_to_transform": [1]},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_starts_as_the_base_and_reloads_as_it_was_trained(
    changes, load, tiny_model: Path, tmp_path: Path
) -> None:
    loaded = load(replace(PLAIN, **changes), train_mode="lora", gradient_checkpointing=False)
    start = base_logits(tiny_model)
    torch.testing.assert_close(logits_of(loaded.model), start, rtol=1e-4, atol=1e-5)
    train(loaded.model)
    trained = logits_of(loaded.model)
    assert (trained - start).abs().max() > 0.05
    save(loaded, tmp_path)
    torch.testing.assert_close(logits_of(reloaded(tmp_path)), trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["use_dora", "use_rslora", "lora_bias"])
def test_a_variant_on_a_4_bit_base(variant: str, load) -> None:
    loaded = load(replace(PLAIN, **{variant: True}), gradient_checkpointing=False)
    before = logits_of(loaded.model)
    train(loaded.model)
    assert len(four_bit_layers(loaded.model)) == 14
    assert (logits_of(loaded.model) - before).abs().max() > 0.05


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_dora_learns_magnitudes(mode: str, load) -> None:
    loaded = load(replace(PLAIN, use_dora=True), train_mode=mode, gradient_checkpointing=False)
    magnitudes = {name: value for name, value in loaded.model.named_parameters() if "lora_magnitude_vector" in name}
    assert len(magnitudes) == 2 * 7
    assert all(value.requires_grad and value.dtype == torch.float32 for value in magnitudes.values())
    before = {name: value.detach().clone() for name, value in magnitudes.items()}
    train(loaded.model)
    assert all(not torch.equal(before[name], value) for name, value in magnitudes.items())


def test_a_start_from_the_weights_is_saved_for_the_unchanged_base(load, tmp_path: Path) -> None:
    loaded = load(replace(PLAIN, init_lora_weights="pissa", use_rslora=True), train_mode="lora")
    config = save(loaded, tmp_path)
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    assert config["lora_alpha"] / math.sqrt(config["r"]) == pytest.approx(8 / math.sqrt(4))


def test_saved_modules_are_trained_in_float32_on_a_16_bit_base(load, machines, tmp_path: Path) -> None:
    section = replace(PLAIN, modules_to_save=["embed_tokens", "lm_head"])
    loaded = load(section, hardware=machines["fast cpu"], train_mode="lora", gradient_checkpointing=False)
    model = loaded.model.get_base_model()
    assert model.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
    assert model.lm_head.modules_to_save["default"].weight.dtype == torch.float32
    train(loaded.model)
    trained = logits_of(loaded.model)
    save(loaded, tmp_path)
    again = reloaded(tmp_path)
    torch.testing.assert_close(logits_of(again).float(), trained.float(), rtol=0.05, atol=0.05)


def test_tied_embeddings_stay_one(tmp_path: Path, load) -> None:
    from component.models.tiny import Shape, make_tiny_model

    text = tmp_path / "text.txt"
    text.write_text("some words to learn from\n" * 3)
    shape = Shape(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    make_tiny_model(tmp_path / "model", shape=shape, seed=0, texts=[text])
    section = replace(PLAIN, modules_to_save=["embed_tokens"])
    loaded = load(section, model_name_or_path=str(tmp_path / "model"), train_mode="lora", gradient_checkpointing=False)
    train(loaded.model)
    trained = logits_of(loaded.model)
    base = loaded.model.get_base_model()
    head = base.get_output_embeddings()
    assert base.get_input_embeddings().weight.data_ptr() == head.weight.data_ptr()
    save(loaded, tmp_path / "run")
    torch.testing.assert_close(logits_of(reloaded(tmp_path / "run")), trained, rtol=1e-4, atol=1e-5)


def test_layers_by_number(load) -> None:
    loaded = load(replace(PLAIN, layers_to_transform=[1]), train_mode="lora")
    names = [name for name, value in loaded.model.named_parameters() if value.requires_grad]
    assert len(names) == 2 * 7
    assert all(".layers.1." in name for name in names)


def test_a_layer_that_is_not_there(load) -> None:
    with pytest.raises(UserError) as caught:
        load(replace(PLAIN, layers_to_transform=["0-3"]), train_mode="lora")
    assert caught.value.messages == ("layers_to_transform: there is no layer 2; the model's layers are 0 to 1",)


def test_modules_that_cannot_be_saved(load) -> None:
    with pytest.raises(UserError) as caught:
        load(replace(PLAIN, modules_to_save=["head"]), train_mode="lora")
    assert caught.value.messages == ("modules_to_save: no module is called 'head'; embed_tokens and lm_head are usual",)
    with pytest.raises(UserError) as caught:
        load(replace(PLAIN, modules_to_save=["q_proj"], lora_target_modules=["v_proj"]))
    assert caught.value.messages == (
        "modules_to_save: 'q_proj' is quantized and cannot be trained in full; leave it out",
    )

"""Which quantized checkpoints train, and the settings of 4-bit weights."""

from __future__ import annotations

import pytest

from component.config.errors import UserError
from component.models.precision import resolve_precision
from component.models.quantization import build_quantization_config, check_quantization

FOUR_BIT = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}


def test_a_4bit_checkpoint_is_kept_for_qlora() -> None:
    assert check_quantization(FOUR_BIT, "qlora") == "bitsandbytes 4-bit"
    assert check_quantization({}, "qlora") is None


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_4bit_checkpoint_is_refused_where_16_bit_is_needed(mode) -> None:
    with pytest.raises(UserError) as caught:
        check_quantization(FOUR_BIT, mode)
    assert caught.value.messages == (
        f"train_mode: {mode} needs 16-bit weights, and the checkpoint is quantized (bitsandbytes 4-bit); "
        "use train_mode: qlora, or the checkpoint that it was made from",
    )


def test_other_quantizations_are_refused() -> None:
    with pytest.raises(UserError, match="checkpoints quantized with gptq cannot be trained on"):
        check_quantization({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "qlora")


def test_settings_follow_the_config(section, cpu) -> None:
    import torch

    model = section(bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False)
    built = build_quantization_config(model, resolve_precision(model, cpu), {})
    assert (built.load_in_4bit, built.bnb_4bit_quant_type, built.bnb_4bit_use_double_quant) == (True, "fp4", False)
    assert built.bnb_4bit_compute_dtype == torch.float32
    assert built.llm_int8_skip_modules is None


def test_routers_and_towers_stay_in_16_bit(section, cpu) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    model = section()
    built = build_quantization_config(model, resolve_precision(model, cpu), {"num_local_experts": 8})
    kept = ["lm_head", "model.vision_tower.layers.0.q_proj", "model.layers.0.mlp.gate", "model.layers.0.mlp.router"]
    converted = ["model.layers.0.mlp.gate_proj", "model.layers.0.self_attn.q_proj"]
    assert [should_convert_module(name, built.llm_int8_skip_modules) for name in kept] == [False] * 4
    assert [should_convert_module(name, built.llm_int8_skip_modules) for name in converted] == [True] * 2


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_other_modes_are_not_quantized(section, mode, cpu) -> None:
    model = section(train_mode=mode)
    assert build_quantization_config(model, resolve_precision(model, cpu), {}) is None


def test_8_bit_layers_learn_on_the_cpu(load, tmp_path) -> None:
    """Outputs near those of the 16-bit model, gradients through every layer, and a base that stays as it is."""
    import torch
    from transformers import AutoModelForCausalLM

    from component.models.inference import load_for_inference
    from component.models.quantization import eight_bit_layers, four_bit_layers

    loaded = load(quantization="int8", gradient_checkpointing=False)
    layers = eight_bit_layers(loaded.model)
    assert (len(layers), len(four_bit_layers(loaded.model))) == (2 * 7, 0)
    assert {layer.weight.dtype for layer in layers.values()} == {torch.int8}
    assert loaded.asked["quantization"] == "8-bit"
    assert loaded.got["quantization"] == "8-bit (14 layers)"
    row = torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(loaded.model.get_base_model().name_or_path)
    with torch.no_grad():
        exact = plain(row).logits
        near = loaded.model.eval()(row, use_cache=False).logits
    assert 0 < (near - exact).abs().mean() < 0.05 * exact.abs().mean()
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    optimizer = torch.optim.SGD([value for value in loaded.model.parameters() if value.requires_grad], lr=0.5)
    loaded.model.train()
    losses = []
    for _ in range(8):
        loss = loaded.model(row, labels=row, use_cache=False).loss
        loss.backward()
        losses.append(loss.item())
        gradients = [value.grad for name, value in loaded.model.named_parameters() if "lora_B" in name]
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(before[name], layer.weight) for name, layer in layers.items())

    with torch.no_grad():
        trained = loaded.model.eval()(row, use_cache=False).logits
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "train_args.yaml").write_text("train_mode: qlora\nquantization: int8\n")
    again, _ = load_for_inference(str(tmp_path), device="cpu")
    assert len(eight_bit_layers(again)) == 14
    with torch.no_grad():
        torch.testing.assert_close(again(row, use_cache=False).logits, trained, rtol=1e-4, atol=1e-5)

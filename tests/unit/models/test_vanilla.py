"""The vanilla loader on a tiny model: what is quantized, what is trained, what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from component.config.errors import UserError
from component.config.schema import AdapterSection
from component.models import vanilla
from component.models.precision import resolve_precision
from component.models.quantization import four_bit_layers
from component.models.tokenizer import load_tokenizer
from component.models.vanilla import load_vanilla

PROJECTIONS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def leaves(names) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name in names})


def test_qlora_quantizes_the_layers_but_not_head_and_embeddings(load) -> None:
    import bitsandbytes

    loaded = load()
    layers = four_bit_layers(loaded.model)
    assert len(layers) == 2 * 7
    assert {layer.weight.quant_type for layer in layers.values()} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers.values())
    assert all(layer.support_avx512bf16_for_cpu is False for layer in layers.values())
    assert {layer.compute_dtype for layer in layers.values()} == {torch.float32}
    head, embeddings = loaded.model.get_output_embeddings(), loaded.model.get_input_embeddings()
    assert not isinstance(head, bitsandbytes.nn.Linear4bit)
    assert head.weight.dtype == embeddings.weight.dtype == torch.float32
    assert loaded.got["quantization"] == "4-bit nf4, double quantization (14 layers)"


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_exactly_the_adapter_is_trained(load, mode) -> None:
    loaded = load(train_mode=mode)
    trained = {name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in loaded.model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    assert len(trained) == 2 * 2 * 7
    assert all(parameter.dtype == torch.float32 for parameter in loaded.model.parameters() if parameter.requires_grad)
    assert sorted(loaded.peft_config.target_modules) == PROJECTIONS
    assert loaded.model.config.use_cache is False
    assert loaded.model.is_gradient_checkpointing


def test_full_training_trains_float32_masters(load) -> None:
    loaded = load(train_mode="full", gradient_checkpointing=False)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.peft_config is None
    assert not loaded.model.is_gradient_checkpointing


def test_the_last_layers_alone_are_trained(load) -> None:
    """After a step, everything else is the same bit for bit, with checkpointing or without."""
    row = torch.arange(5, 25)[None]
    for gradient_checkpointing in (True, False):
        loaded = load(train_mode="full", freeze_trainable_layers=1, gradient_checkpointing=gradient_checkpointing)
        before = {name: value.detach().clone() for name, value in loaded.model.named_parameters()}
        optimizer = torch.optim.SGD([value for value in loaded.model.parameters() if value.requires_grad], lr=0.1)
        loaded.model.train()
        loaded.model(row, labels=row, use_cache=False).loss.backward()
        optimizer.step()
        changed = {name for name, value in loaded.model.named_parameters() if not torch.equal(before[name], value)}
        assert changed == {name for name in before if name.startswith("model.layers.1.")}
        assert loaded.notices[-1].startswith("the last 1 of 2 layers are trained, 36,992 parameters;")
    with pytest.raises(UserError) as caught:
        load(train_mode="full", freeze_trainable_layers=3)
    assert caught.value.messages == ("freeze_trainable_layers: got 3, and the model has 2 layers; use fewer",)


def test_unsloths_checkpointing_is_plain_here(load) -> None:
    loaded = load(train_mode="lora", gradient_checkpointing="unsloth")
    assert loaded.model.is_gradient_checkpointing
    assert loaded.asked["gradient_checkpointing"] == "unsloth"
    assert loaded.got["gradient_checkpointing"] is True
    assert loaded.notices == ("gradient_checkpointing: unsloth is Unsloth's own; here as with true",)


def test_what_was_asked_and_got_is_told(load) -> None:
    loaded = load(train_mode="lora", fp16=True, max_seq_length=256)
    assert loaded.asked["fp16"] is True
    assert (loaded.got["loader"], loaded.got["fp16"], loaded.got["dtype"]) == ("vanilla", False, "float32")
    assert loaded.got["attn_implementation"] == "sdpa"
    assert loaded.notices == (
        "fp16: true becomes float32 on a CPU",
        "max_seq_length: 256 is beyond the 128 positions that the model was made for; rope_scaling stretches them",
    )


def test_named_targets(load) -> None:
    loaded = load(AdapterSection(lora_rank=4, lora_target_modules=["q_proj", "v_proj"]), train_mode="lora")
    assert sorted(loaded.peft_config.target_modules) == ["q_proj", "v_proj"]


def test_an_unknown_target_lists_what_there_is(load) -> None:
    with pytest.raises(UserError) as caught:
        load(AdapterSection(lora_target_modules=["q_prj"]), train_mode="lora")
    assert caught.value.messages == (
        "lora_target_modules: no linear layer is called 'q_prj'; there are down_proj, gate_proj, k_proj, lm_head, "
        "o_proj, q_proj, up_proj, v_proj",
    )


def test_a_quantized_checkpoint_is_loaded_as_it_is(load, tmp_path, tiny_model) -> None:
    # Merging or unloading would touch the weights; the base of a qlora load is the quantized model itself.
    made = load(gradient_checkpointing=False)
    made.model.unload().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model / name, tmp_path / name)
    loaded = load(model_name_or_path=str(tmp_path), bnb_4bit_quant_type="fp4")
    layers = four_bit_layers(loaded.model)
    assert {layer.weight.quant_type for layer in layers.values()} == {"nf4"}
    assert loaded.got["quantization"] == "bitsandbytes 4-bit, the checkpoint's own (14 4-bit layers)"
    with pytest.raises(UserError, match="train_mode: lora needs 16-bit weights"):
        load(model_name_or_path=str(tmp_path), train_mode="lora")


def test_an_adapter_is_continued(load, tmp_path) -> None:
    first = load(train_mode="lora", seed=1)
    first.model.save_pretrained(tmp_path)
    again = load(train_mode="lora", seed=2, model_name_or_path=str(tmp_path))
    expected, found = dict(first.model.named_parameters()), dict(again.model.named_parameters())
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert {name for name in found if found[name].requires_grad} == {name for name in found if "lora_" in name}
    assert again.notices[0].startswith(f"training goes on from the adapter {tmp_path}: its rank 4, alpha 8")


def test_an_adapter_is_merged_before_full_training(load, tmp_path) -> None:
    first = load(train_mode="lora")
    first.model.save_pretrained(tmp_path)
    loaded = load(train_mode="full", model_name_or_path=str(tmp_path))
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())


def test_a_tokenizer_beyond_the_embeddings_is_refused(section, adapter, cpu) -> None:
    model = section(train_mode="lora")
    tokenizer = load_tokenizer(model).tokenizer
    tokenizer.add_tokens(["one more"])
    with pytest.raises(UserError, match="tokenizer_name_or_path: the tokenizer has ids up to"):
        load_vanilla(
            model,
            adapter,
            tokenizer=tokenizer,
            precision=resolve_precision(model, cpu),
            hardware=cpu,
            gradient_checkpointing_kwargs={},
        )


def test_checkpoints_stay_in_main_memory_where_checkpointing_is_switched_off_and_on(load, monkeypatch) -> None:
    """As TRL does it for a reference, with the arguments of torch.utils.checkpoint alone."""
    monkeypatch.setattr(vanilla, "_offloads", lambda request: True)
    base = load(gradient_checkpointing=True).model.get_base_model()
    seen = [base.model.layers[0]._gradient_checkpointing_func.func]
    base.gradient_checkpointing_disable()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    seen.append(base.model.layers[0]._gradient_checkpointing_func.func)
    assert [function.__qualname__.rpartition(".")[2] for function in seen] == ["checkpoint_func"] * 2

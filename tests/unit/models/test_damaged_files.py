"""Folders that are damaged, incomplete or of another model: one line that says what to mend, before anything trains."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from component.config.errors import UserError
from component.models.checkpoint import check_stored_names
from component.models.failures import first_line, told_as_user_error
from component.models.inference import load_for_inference
from component.models.model_files import ModelSource, read_model_config
from component.models.precision import resolve_precision
from component.models.quantization import check_quantization
from component.models.tokenizer import load_tokenizer
from component.models.vanilla import load_vanilla

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def load(section, adapter, cpu) -> Callable[[Path], Any]:
    def build(folder: Path):
        model = section(model_name_or_path=str(folder), train_mode="lora", gradient_checkpointing=False)
        check_quantization(read_model_config(model), model.train_mode)
        return load_vanilla(
            model,
            adapter,
            tokenizer=load_tokenizer(model).tokenizer,
            precision=resolve_precision(model, cpu),
            hardware=cpu,
            gradient_checkpointing_kwargs={},
        )

    return build


@pytest.fixture
def refusal(load) -> Callable[[Path], str]:
    """The one line with which a folder is refused."""

    def build(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            load(folder)
        (message,) = caught.value.messages
        assert "\n" not in message
        return message

    return build


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_missing_weights_are_not_trained_from_random_ones(folder, refusal) -> None:
    change(folder / "config.json", num_hidden_layers=3)
    assert refusal(folder) == (
        f"model_name_or_path: {folder} lacks weights that its config.json asks for (9): "
        "model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, "
        "model.layers.2.mlp.gate_proj.weight, ...; check its files"
    )


def test_weights_of_another_family(folder, refusal) -> None:
    change(folder / "config.json", model_type="bert", architectures=None)
    assert f"{folder} lacks weights that its config.json asks for (" in refusal(folder)


def test_a_tied_head_is_not_missing(folder, load) -> None:
    change(folder / "config.json", tie_word_embeddings=True)
    weights = load_file(folder / WEIGHTS)
    del weights["lm_head.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert load(folder).notices == ()


def test_weights_without_a_place_are_told(folder, load) -> None:
    change(folder / "config.json", num_hidden_layers=1)
    assert load(folder).notices == (
        f"model_name_or_path: {folder} holds weights that its config.json has no place for (9), they are ignored: "
        "model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight, "
        "model.layers.1.mlp.gate_proj.weight, ...",
    )


def test_weights_of_other_shapes(folder, refusal) -> None:
    change(folder / "config.json", intermediate_size=96)
    assert refusal(folder) == (
        f"model_name_or_path: {folder} has weights of other shapes than its config.json asks for (6): "
        "model.layers.0.mlp.down_proj.weight is [64, 128] and not [64, 96]; check its files"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "Error while deserializing header: incomplete metadata, file not fully covered"),
        (b"", "Error while deserializing header: header too small"),
        (b"garbage " * 20, "Error while deserializing header: header too large"),
    ],
    ids=["truncated", "empty", "garbage"],
)
def test_damaged_weights(folder, refusal, content, reason) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    assert refusal(folder) == f"model_name_or_path: {folder} cannot be loaded: {reason}; check its files"


def test_a_bin_that_is_no_pickle(folder, refusal) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage " * 20)
    assert refusal(folder) == (
        f"model_name_or_path: {folder} cannot be loaded: its weights are no file of PyTorch's, or hold more than "
        "weights; check its files"
    )


def test_a_generation_config_that_is_a_list(folder, refusal) -> None:
    (folder / "generation_config.json").write_text("[]")
    assert refusal(folder) == (
        f"model_name_or_path: {folder} cannot be loaded: list indices must be integers or slices, not str; "
        "check its files"
    )


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        ({"model_type": None}, '/config.json: model_type is null; it must be a name such as "llama"'),
        ({"model_type": 3}, '/config.json: model_type is 3; it must be a name such as "llama"'),
        ({"num_hidden_layers": "two"}, '/config.json: num_hidden_layers is "two"; it must be a positive whole number'),
        ({"vocab_size": -1}, "/config.json: vocab_size is -1; it must be a positive whole number"),
        ({"hidden_size": True}, "/config.json: hidden_size is true; it must be a positive whole number"),
        ({"text_config": {"hidden_size": 0}}, "/config.json: hidden_size is 0; it must be a positive whole number"),
        ({"text_config": [1]}, "/config.json: text_config is no JSON object; mend the file"),
    ],
)
def test_impossible_configs_are_seen_without_transformers(folder, section, values, rest) -> None:
    change(folder / "config.json", **values)
    with pytest.raises(UserError) as caught:
        read_model_config(section(model_name_or_path=str(folder)))
    assert caught.value.messages == (f"model_name_or_path: {folder}{rest}",)


def test_sizes_by_layer_are_left_to_the_family(folder, section) -> None:
    change(folder / "config.json", num_attention_heads=[4, 2])
    assert read_model_config(section(model_name_or_path=str(folder)))["num_attention_heads"] == [4, 2]


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        (
            {"model_type": "zork"},
            " has model_type 'zork', which the installed transformers does not know; "
            "check its config.json, or install a transformers that does",
        ),
        (
            {"num_attention_heads": 7},
            " cannot be loaded: Class validation error for validator 'validate_architecture': ValueError: The hidden "
            "size (64) is not a multiple of the number of attention heads (7); check its files",
        ),
        ({"dtype": "float99"}, " cannot be loaded: module 'torch' has no attribute 'float99'; check its files"),
    ],
    ids=["family", "heads", "dtype"],
)
def test_configs_that_transformers_refuses_are_seen_with_the_tokenizer(folder, section, values, rest) -> None:
    change(folder / "config.json", **values)
    with pytest.raises(UserError) as caught:
        load_tokenizer(section(model_name_or_path=str(folder)))
    assert caught.value.messages == (f"model_name_or_path: {folder}{rest}",)


def test_a_quantization_config_that_is_no_object() -> None:
    with pytest.raises(UserError) as caught:
        check_quantization({"quantization_config": "x"}, "lora")
    assert caught.value.messages == (
        "model_name_or_path: quantization_config in config.json is 'x' and no JSON object; mend or remove it",
    )


@pytest.fixture
def saved_adapter(load, tiny_model, tmp_path) -> Path:
    """An adapter folder, to be damaged."""
    load(tiny_model).model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_truncated_adapter(saved_adapter, refusal) -> None:
    (saved_adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 20)
    assert refusal(saved_adapter) == (
        f"model_name_or_path: the adapter {saved_adapter} cannot be loaded: Error while deserializing header: header "
        "too large; check its files and its base"
    )


def test_an_adapter_without_weights(saved_adapter, refusal) -> None:
    (saved_adapter / "adapter_model.safetensors").unlink()
    assert refusal(saved_adapter) == (
        f"model_name_or_path: the adapter {saved_adapter} has no adapter_model.safetensors; "
        "copy the whole folder of the adapter"
    )


def test_an_adapter_that_lacks_a_layer(saved_adapter, refusal, tiny_model) -> None:
    file = saved_adapter / "adapter_model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if ".layers.1." not in name}
    save_file(weights, file, metadata={"format": "pt"})
    assert refusal(saved_adapter) == (
        f"model_name_or_path: the adapter {saved_adapter} lacks weights of layers that its adapter_config.json names; "
        f"it was loaded onto {tiny_model}, the base that its adapter_config.json names; check both"
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"r": 8}, "Error(s) in loading state_dict for PeftModelForCausalLM: size mismatch for base_model."),
        ({"target_modules": ["zork"]}, "Target modules {'zork'} not found in the base model"),
    ],
    ids=["rank", "targets"],
)
def test_an_adapter_config_that_does_not_fit(saved_adapter, refusal, tiny_model, values, reason) -> None:
    change(saved_adapter / "adapter_config.json", **values)
    message = refusal(saved_adapter)
    assert message.startswith(f"model_name_or_path: the adapter {saved_adapter} cannot be loaded: {reason}")
    assert message.endswith(
        f"; it was loaded onto {tiny_model}, the base that its adapter_config.json names; check both"
    )
    with pytest.raises(UserError) as caught:
        load_for_inference(str(saved_adapter), device="cpu")
    assert str(caught.value).startswith(f"model_name_or_path: the adapter {saved_adapter} cannot be loaded: {reason}")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer.json", {}, "KeyError 'added_tokens'"),
        ("tokenizer_config.json", [], "list indices must be integers or slices, not str"),
        (
            "tokenizer_config.json",
            {"eos_token": 3},
            "Special token eos_token has to be either str or AddedToken but got: <class 'int'>",
        ),
        ("tokenizer_config.json", {"tokenizer_class": 3}, "'int' object has no attribute 'endswith'"),
    ],
    ids=["tokenizer", "list", "eos", "class"],
)
def test_damaged_tokenizers(folder, refusal, file, content, reason) -> None:
    (folder / file).write_text(json.dumps(content))
    assert refusal(folder) == (
        f"tokenizer_name_or_path: no tokenizer can be loaded from {folder}: {reason}; "
        "name a folder or hub id with tokenizer.json"
    )


def test_a_bare_exception_of_tokenizers(folder, refusal) -> None:
    change(folder / "tokenizer.json", model={"type": "Zork"})
    assert refusal(folder).startswith(f"tokenizer_name_or_path: no tokenizer can be loaded from {folder}: ")


def test_a_length_that_is_no_number(folder, refusal) -> None:
    change(folder / "tokenizer_config.json", model_max_length="abc")
    assert refusal(folder) == (
        f"tokenizer_name_or_path: model_max_length of {folder} is 'abc'; set a number in its tokenizer_config.json"
    )


def test_a_revision_of_a_folder_is_told(section, tiny_model) -> None:
    assert load_tokenizer(section(model_revision="v1")).notices == (
        f"model_revision: v1 is ignored; {tiny_model} is a local folder",
    )


def test_lack_of_memory_is_no_fault_of_a_file() -> None:
    with pytest.raises(torch.OutOfMemoryError), told_as_user_error("x", "y"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_first_lines() -> None:
    assert first_line(ValueError("\n one:\n  two:\n\n three.\n four")) == "one: two: three"
    assert first_line(KeyError("a")) == "KeyError 'a'"
    assert first_line(RuntimeError()) == "RuntimeError"


def test_names_in_the_files_against_a_loaded_model(tiny_model, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    source = ModelSource(base=str(tmp_path))
    assert check_stored_names(ModelSource(base=str(tiny_model)), model) == check_stored_names(source, model) == ()
    weights = load_file(tiny_model / WEIGHTS)
    weights |= {"model.norm.weight.absmax": torch.ones(1), "model.rotary_emb.inv_freq": torch.ones(1)}
    save_file(weights, tmp_path / WEIGHTS)
    assert check_stored_names(source, model) == ()
    save_file({**weights, "zork": torch.ones(1)}, tmp_path / WEIGHTS)
    assert check_stored_names(source, model) == (
        f"model_name_or_path: {tmp_path} holds weights that its config.json has no place for (1), they are ignored: "
        "zork",
    )
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(UserError) as caught:
        check_stored_names(source, model)
    assert caught.value.messages == (
        f"model_name_or_path: {tmp_path} lacks weights that its config.json asks for (1): model.norm.weight; "
        "check its files",
    )

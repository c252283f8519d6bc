"""Which loader is chosen, and the true reason where it is not the one that was asked for."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest

from component.config.errors import UserError
from component.pipeline.choose_loader import FAILURE_VARIABLE, choose_loader

pytestmark = pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed")


@pytest.fixture
def before_imports(monkeypatch) -> None:
    """As at the start of a process: nothing heavy is imported."""
    for name in ("transformers", "trl", "peft"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def family(tmp_path, section):
    """A section whose config.json says what is given."""

    def build(use_unsloth=True, **config):
        of_run = ("train_mode", "max_seq_length", "reference_model_name_or_path")
        keys = {key: config.pop(key) for key in list(config) if key in of_run}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
        return section(model_name_or_path=str(tmp_path), use_unsloth=use_unsloth, **keys)

    return build


def test_false_is_vanilla_without_a_look_at_the_model(section, cpu) -> None:
    choice = choose_loader(section(use_unsloth=False, model_name_or_path="./nothing"), "sft", cpu)
    assert (choice.got, choice.reason, choice.is_fallback) == ("vanilla", "use_unsloth: false", False)


@pytest.mark.parametrize("asked", [True, "require"])
def test_a_supported_model_gets_unsloth(section, cpu, before_imports, asked) -> None:
    choice = choose_loader(section(use_unsloth=asked), "sft", cpu)
    assert (choice.asked, choice.got, choice.reason) == (asked, "unsloth", "as asked")


@pytest.mark.parametrize(
    ("config", "task", "machine", "reason"),
    [
        ({"model_type": "bloom"}, "sft", "ampere", "model family 'bloom' is not one that Unsloth is known to support"),
        (
            {},
            "reward",
            "ampere",
            "Unsloth's CPU backend has no score head, and that of its GPU path has not been tried",
        ),
        ({}, "mine", "ampere", "task 'mine' has not been verified on Unsloth"),
        ({}, "sft", "pascal", "Unsloth needs compute capability 7.0, and test P100 has 6.0"),
        (
            {"max_position_embeddings": 32},
            "sft",
            "ampere",
            "max_seq_length 64 exceeds the model's 32 positions, and Unsloth would rescale",
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            "sft",
            "ampere",
            "the checkpoint is quantized to 8 bit",
        ),
    ],
)
def test_the_reason_of_a_fallback(family, machines, before_imports, config, task, machine, reason) -> None:
    choice = choose_loader(family(**config), task, machines[machine])
    assert (choice.got, choice.is_fallback, choice.reason) == ("vanilla", True, reason)
    with pytest.raises(UserError) as caught:
        choose_loader(family(use_unsloth="require", **config), task, machines[machine])
    assert caught.value.messages == (
        f"use_unsloth: require cannot be met: {reason}; mend that, or use use_unsloth: true",
    )


def test_settings_that_unsloth_would_not_follow(section, machines, before_imports) -> None:
    choice = choose_loader(section(use_unsloth=True, bnb_4bit_quant_type="fp4"), "sft", machines["ampere"])
    assert (choice.got, choice.reason) == ("vanilla", "bnb_4bit_quant_type fp4 is not offered by Unsloth")


def test_8_bit_weights_on_a_cpu_are_not_unsloths(section, cpu, before_imports) -> None:
    choice = choose_loader(section(use_unsloth=True, quantization="int8"), "sft", cpu)
    assert (choice.got, choice.reason) == ("vanilla", "Unsloth makes no 8-bit weights on a CPU")


def test_an_early_import_is_told(section, cpu, before_imports, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", object())
    choice = choose_loader(section(use_unsloth=True), "sft", cpu)
    assert choice.reason == "transformers was imported before it, perhaps by a plugin"


def test_a_restarted_process_knows_why(section, cpu, before_imports, monkeypatch) -> None:
    monkeypatch.setenv(FAILURE_VARIABLE, "out of luck")
    choice = choose_loader(section(use_unsloth=True), "sft", cpu)
    assert (choice.got, choice.reason) == ("vanilla", "Unsloth failed in this run: out of luck")


@pytest.mark.parametrize(
    ("config", "task", "machine", "got", "reason"),
    [
        ({}, "sft", "ampere", "unsloth", "Unsloth has its own kernels for llama"),
        ({}, "sft", "cpu", "vanilla", "Unsloth brings nothing on test CPU"),
        (
            {"model_type": "phi3"},
            "sft",
            "ampere",
            "vanilla",
            "Unsloth has no kernels of its own for model family 'phi3'",
        ),
        (
            {"train_mode": "full"},
            "sft",
            "ampere",
            "vanilla",
            "Unsloth's own kernels are for adapters, and train_mode is full",
        ),
        (
            {"reference_model_name_or_path": "other"},
            "dpo",
            "ampere",
            "vanilla",
            "a reference model of its own has not been tried beside Unsloth here",
        ),
        ({}, "orpo", "ampere", "vanilla", "Unsloth has not been shown to be faster for task 'orpo' here"),
    ],
)
def test_auto(family, machines, before_imports, config, task, machine, got, reason) -> None:
    choice = choose_loader(family(use_unsloth="auto", **config), task, machines[machine])
    assert (choice.got, choice.reason, choice.is_fallback) == (got, reason, False)


@pytest.mark.parametrize(("key", "value"), [("deepspeed", "zero3.json"), ("fsdp", "full_shard")])
@pytest.mark.parametrize(("asked", "is_fallback"), [("auto", False), (True, True)])
def test_what_is_sharded_is_loaded_by_vanilla(
    section, machines, before_imports, key: str, value: str, asked: bool | str, is_fallback: bool
) -> None:
    choice = choose_loader(section(use_unsloth=asked, **{key: value}), "dpo", machines["ampere"])
    reason = f"{key} shards what the vanilla loader has loaded, and Unsloth trains on one GPU"
    assert (choice.got, choice.reason, choice.is_fallback) == ("vanilla", reason, is_fallback)

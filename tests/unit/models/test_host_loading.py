"""Weights read into main memory at once: those that keys name, the right ones, and nothing left behind in libraries."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from component.models import vanilla
from component.models.host_loading import explain_detour, read_to_host
from component.models.host_weights import HostHead, HostLookup

KEYS = {"offload_embedding": "model.embed_tokens.weight", "offload_head": "lm_head.weight"}


def on_the_host(model: torch.nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.device.type == "cpu"}


@pytest.mark.parametrize("keys", [[], ["offload_embedding"], ["offload_head"], list(KEYS)])
@pytest.mark.parametrize("bits", [16, 4])
def test_only_what_is_named_is_in_main_memory(tiny_model, keys: list[str], bits: int) -> None:
    """The meta device stands for a card: whatever goes there leaves no numbers."""
    original = PreTrainedModel.__dict__["_load_pretrained_model"].__func__
    settings = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)} if bits == 4 else {}
    with read_to_host(keys) as done:
        model = AutoModelForCausalLM.from_pretrained(tiny_model, device_map={"": "meta"}, **settings)
    assert done == set(keys) and len(explain_detour(list(KEYS), done)) == 2 - len(keys)
    assert on_the_host(model) == {KEYS[key] for key in keys}
    stored = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(model.get_parameter(KEYS[key]), stored[KEYS[key]]) for key in keys)
    assert not hasattr(model, "hf_device_map") and not any(hasattr(module, "_hf_hook") for module in model.modules())
    assert "_no_placement_params" not in vars(model)
    assert PreTrainedModel.__dict__["_load_pretrained_model"].__func__ is original


def test_one_matrix_for_both_stays_where_it_is(tiny_model, tmp_path) -> None:
    config = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tied")
    with read_to_host(list(KEYS)) as done:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "tied", device_map={"": "meta"})
    assert not done and not on_the_host(model)


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_the_vanilla_loader_reads_them_so(load, machines, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(vanilla, "device_map", lambda hardware: {"": "meta"})
    loaded = load(hardware=machines["ampere"], train_mode=mode, offload_embedding=True, offload_head=True)
    base = loaded.model.get_base_model()
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    assert isinstance(embedding, HostLookup) and isinstance(head, HostHead)
    assert embedding.weight.device.type == head.stored.device.type == "cpu"
    assert embedding.target.type == head.target.type == "meta"
    assert not any("moved to main memory afterwards" in notice for notice in loaded.notices)

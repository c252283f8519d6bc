"""Input embeddings in main memory: the same rows and gradients, kept there, refused where they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from component.config.errors import UserError
from component.models import host_embedding
from component.models.host_embedding import check_frozen, device_of, offload_embedding
from component.models.preparing import explain_offload, offloads_embedding

IDS = torch.tensor([[3, 1, 4, 1, 5]])


def test_a_step_is_the_same(load) -> None:
    """Loss and every gradient, through the hook that checkpointing needs on the embeddings' result."""

    def step(*, is_offloaded: bool) -> list[torch.Tensor]:
        model = load().model
        if is_offloaded:
            offload_embedding(model.get_base_model())
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        return [loss.detach(), *(value.grad for value in model.parameters() if value.grad is not None)]

    ours, theirs = step(is_offloaded=True), step(is_offloaded=False)
    assert len(ours) == 1 + 2 * 2 * 7
    assert all(map(torch.equal, ours, theirs))


def test_the_rest_of_the_model_moves_and_they_do_not(load) -> None:
    model = load(train_mode="lora", gradient_checkpointing=False).model.get_base_model()
    names = list(model.state_dict())
    embedding = model.get_input_embeddings()
    size = offload_embedding(model, torch.device("meta"))
    assert size == embedding.weight.numel() * 4
    model.to("meta")
    assert model.get_input_embeddings() is embedding and isinstance(embedding, torch.nn.Embedding)
    assert {name for name, value in model.named_parameters() if value.device.type == "cpu"} == {
        "model.embed_tokens.weight"
    }
    assert device_of(model) == torch.device("meta")
    assert embedding(IDS.to("cpu")).device.type == "meta"
    assert list(model.state_dict()) == names


def test_what_cannot_be_offloaded_is_refused(load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(gradient_checkpointing=False).model.get_base_model()
    monkeypatch.setattr(host_embedding, "world_size", lambda: 2)
    with pytest.raises(UserError, match="train with one process"):
        offload_embedding(model)
    model.lm_head.weight = model.get_input_embeddings().weight
    with pytest.raises(UserError, match="tie_word_embeddings"):
        offload_embedding(model)
    with pytest.raises(UserError, match="lora_A.default.weight is trained"):
        check_frozen(model)


def test_on_a_cpu_it_is_a_notice(section, machines) -> None:
    model = section(offload_embedding=True)
    assert offloads_embedding(model, machines["ampere"]) and not explain_offload(model, machines["ampere"])
    assert not offloads_embedding(model, machines["cpu"]) and explain_offload(model, machines["cpu"])
    assert not explain_offload(replace(model, offload_embedding=False), machines["cpu"])

"""Embeddings and head in main memory: the same numbers and gradients, kept there, refused where they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from component.config.errors import UserError
from component.models import preparing
from component.models.host_weights import HostHead, check_frozen, device_of, offload_embedding, offload_head
from component.models.preparing import explain_offload, offloaded_keys, offloads_embedding, offloads_head
from component.trainers.chunked_loss import ChunkedLoss, find_head

IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_step_is_the_same(load, chunk: int | None) -> None:
    """Loss and every gradient, through the hook that checkpointing needs on the embeddings' result; in parts too."""

    def step(*, is_offloaded: bool) -> list[torch.Tensor]:
        model = load().model
        if is_offloaded:
            offload_embedding(model.get_base_model())
            offload_head(model.get_base_model())
        if chunk is not None:
            base = model.get_base_model()
            assert ChunkedLoss(base, find_head(base), chunk_tokens=chunk).install() is None
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
    offload_embedding(model, torch.device("meta"))
    model.to("meta")
    assert model.get_input_embeddings() is embedding and isinstance(embedding, torch.nn.Embedding)
    assert {name for name, value in model.named_parameters() if value.device.type == "cpu"} == {
        "model.embed_tokens.weight"
    }
    assert device_of(model) == torch.device("meta")
    assert embedding(IDS.to("cpu")).device.type == "meta"
    assert list(model.state_dict()) == names


def test_the_head_is_copied_for_each_reader(load) -> None:
    """Its weight lies in main memory, and a copy on the device lives as long as its reader."""
    model = load(train_mode="lora", gradient_checkpointing=False).model.get_base_model()
    head, names, kept = model.get_output_embeddings(), list(model.state_dict()), model.lm_head.weight.clone()
    offload_head(model, torch.device("meta"))
    model.to("meta")
    assert model.get_output_embeddings() is head and isinstance(head, torch.nn.Linear) and isinstance(head, HostHead)
    assert head.weight.device.type == "meta" and head.weight is not head.weight
    assert torch.equal(head.stored, kept) and not head.stored.requires_grad
    assert list(model.state_dict()) == names and torch.equal(model.state_dict()["lm_head.weight"], kept)
    assert head(torch.ones(1, 3, kept.shape[1], device="meta")).shape == (1, 3, kept.shape[0])


def test_what_cannot_be_offloaded_is_refused(load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(gradient_checkpointing=False).model.get_base_model()
    monkeypatch.setattr(preparing, "world_size", lambda: 2)
    with pytest.raises(UserError, match="train with one process"):
        offload_embedding(model)
    model.lm_head.weight = model.get_input_embeddings().weight
    for offload in (offload_embedding, offload_head):
        with pytest.raises(UserError, match="tie_word_embeddings"):
            offload(model)
    with pytest.raises(UserError, match=r"^offload_head: .*lora_A.default.weight is trained.*; drop offload_head$"):
        check_frozen(model, ["offload_head"])


def test_a_head_that_another_module_wraps_is_refused(load, adapter) -> None:
    """Its weight would be taken out from under a trained copy, or out of its quantization."""
    trained = replace(adapter, modules_to_save=["lm_head"])
    model = load(trained, train_mode="lora", gradient_checkpointing=False).model.get_base_model()
    with pytest.raises(UserError, match="no plain linear layer but ModulesToSaveWrapper"):
        offload_head(model)


def test_what_keeps_weights_apart_is_named(section, machines) -> None:
    model = section(offload_head=True)
    assert offloaded_keys(model, machines["ampere"]) == ["offload_head"]
    assert offloaded_keys(model, machines["cpu"]) == []


def test_on_a_cpu_it_is_a_notice(section, machines) -> None:
    model = section(offload_embedding=True, offload_head=True)
    for offloads in (offloads_embedding, offloads_head):
        assert offloads(model, machines["ampere"]) and not offloads(model, machines["cpu"])
    assert not explain_offload(model, machines["ampere"]) and len(explain_offload(model, machines["cpu"])) == 2
    assert not explain_offload(replace(model, offload_embedding=False, offload_head=False), machines["cpu"])

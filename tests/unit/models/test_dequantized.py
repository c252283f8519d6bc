"""A base that is dequantized once computes as its 4-bit layers do; layers that skip checkpointing run once."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from component.config.errors import UserError
from component.models.decoder_layers import evenly_spaced, find_layers
from component.models.fp8_base import round_base
from component.models.quantization import dequantize_layers, dequantized_layers, four_bit_layers

IDS = torch.arange(4, 44).view(2, 20)


def _loss_and_gradients(model) -> tuple[float, dict[str, torch.Tensor]]:
    for _, parameter in model.named_parameters():
        parameter.grad = None
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return loss.item(), {name: parameter.grad for name, parameter in trained.items()}


@pytest.mark.parametrize("machine", ["cpu", "fast cpu"])
def test_a_dequantized_base_gives_the_same_numbers(load, machines, machine) -> None:
    quantized, dequantized = (load(hardware=machines[machine], dequantize_base=wanted) for wanted in (False, True))
    number = len(four_bit_layers(quantized.model))
    assert number == len(dequantized_layers(dequantized.model)) == 14
    assert not four_bit_layers(dequantized.model)
    assert dequantized.got["quantization"] == "4-bit nf4, dequantized once (14 layers)"
    for model in (quantized.model, dequantized.model):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.01)
    loss, gradients = _loss_and_gradients(quantized.model)
    same_loss, same_gradients = _loss_and_gradients(dequantized.model)
    assert loss == same_loss
    assert gradients.keys() == same_gradients.keys()
    assert all(torch.equal(gradient, same_gradients[name]) for name, gradient in gradients.items())


def test_evenly_spaced() -> None:
    assert [evenly_spaced(number, of=8) for number in (0, 1, 2, 3, 8)] == [
        [],
        [7],
        [3, 7],
        [1, 4, 7],
        list(range(8)),
    ]


@pytest.mark.parametrize(("skipped", "calls"), [(0, [2, 2]), (1, [2, 1]), (2, [1, 1])])
def test_skipped_layers_run_once(load, skipped, calls) -> None:
    loaded = load(gradient_checkpointing=True, checkpoint_skip_layers=skipped)
    _, layers = find_layers(loaded.model.get_base_model())
    seen = [0, 0]

    def count(module, *_: object) -> None:
        seen[next(index for index, layer in enumerate(layers) if layer.mlp is module)] += 1

    for layer in layers:
        layer.mlp.register_forward_pre_hook(count)
    _loss_and_gradients(loaded.model)
    assert seen == calls
    assert loaded.got["checkpoint_skip_layers"] == skipped


def test_more_layers_than_there_are_cannot_be_skipped(load) -> None:
    with pytest.raises(UserError, match="checkpoint_skip_layers: got 3, and the model has 2 layers; use 2 or less"):
        load(gradient_checkpointing=True, checkpoint_skip_layers=3)


@pytest.mark.parametrize(
    ("mode", "replace"),
    [("qlora", lambda model: dequantize_layers(model, compute_dtype="float32")), ("lora", round_base)],
)
def test_layers_go_one_by_one(load, monkeypatch, mode: str, replace: Callable[[nn.Module], object]) -> None:
    """When the last of 14 layers is replaced, no other one is there any more: else a model would be there twice."""
    model = load(train_mode=mode).model.get_base_model()
    layers = [module.base_layer for module in model.modules() if hasattr(module, "base_layer")]
    old = [weakref.ref(layer.weight) for layer in layers]
    del layers
    left = []
    set_module = nn.Module.__setattr__

    def set_and_count(module: nn.Module, name: str, value: object) -> None:
        set_module(module, name, value)
        if name == "base_layer":
            left.append(sum(layer() is not None for layer in old))

    monkeypatch.setattr(nn.Module, "__setattr__", set_and_count)
    replace(model)
    assert len(left) == 14
    assert all(number <= 14 - replaced for replaced, number in enumerate(left)), left

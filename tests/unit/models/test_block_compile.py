"""Which decoder layers Unsloth compiles, by what it puts around them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._dynamo.utils import counters

from component.models.block_compile import leave_uncompiled, uncompiled

pytestmark = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed")


class Layer(torch.nn.Linear):
    """A layer with a method of its own to wrap."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states)


@pytest.fixture
def wrapped(monkeypatch) -> type[Layer]:
    """A class with Unsloth's wrapper around its forward pass, that compiles for no device."""
    own = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: own(function, backend="eager"))
    kind = type("Wrapped", (Layer,), {"forward": Layer.forward})
    unsloth_block_compile()._wrap(kind, {})
    return kind


def unsloth_block_compile() -> ModuleType:
    """Unsloth's module by its file: as a part of Unsloth it comes with Triton, and patches transformers."""
    folder = Path(importlib.util.find_spec("unsloth").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("block_compile_of_unsloth", folder / "models/_block_compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def times_compiled(layer: Layer) -> int:
    before = counters["frames"]["ok"]
    layer(torch.ones(1, 3, 4, requires_grad=True))
    return counters["frames"]["ok"] - before


def test_a_layer_is_left_out(wrapped) -> None:
    compiled, left_out = wrapped(4, 4), wrapped(4, 4)
    leave_uncompiled(left_out)
    assert times_compiled(compiled) > 0
    assert times_compiled(left_out) == 0


def test_no_layer_is_compiled_within(wrapped) -> None:
    layer = wrapped(4, 4)
    with uncompiled():
        assert times_compiled(layer) == 0
    assert times_compiled(layer) > 0

"""Who gets Liger's kernels where the config says auto, and what run.json says of it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from component.trainers import liger
from component.trainers.liger import choose_liger


def context(loader: str = "vanilla", kind: str = "cuda") -> SimpleNamespace:
    return SimpleNamespace(loader=loader, hardware=SimpleNamespace(kind=kind, name="test device"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Liger that knows Llama."""
    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["liger_kernel.transformers.monkey_patch"].MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    monkeypatch.setattr(liger, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("where", "family", "got", "reason"),
    [
        (context(), "llama", True, "it has kernels for llama"),
        (context(), "bloom", False, "it does not know the family 'bloom'"),
        (context(loader="unsloth"), "llama", False, "the unsloth loader has its own kernels"),
        (context(kind="cpu"), "llama", False, "it runs on CUDA GPUs, and this is test device"),
    ],
)
def test_auto(installed: None, where: SimpleNamespace, family: str, got: bool, reason: str) -> None:
    assert choose_liger("auto", where, family).to_dict() == {"asked": "auto", "got": got, "reason": reason}


def test_what_is_not_there_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    assert choose_liger("auto", context(), "llama").reason == "liger_kernel and triton is not installed"
    assert choose_liger(True, context(), "llama").got is True
    assert choose_liger(False, context(), "llama").got is False

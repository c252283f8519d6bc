"""The Unsloth loader's own rules, as far as they show without importing it (tests/parity runs it)."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers  # noqa: F401  (imported before Unsloth on purpose)

from component.config.errors import UserError
from component.config.schema import AdapterSection
from component.models import unsloth_import
from component.models.request import LoadRequest
from component.models.unsloth import _ignored
from component.models.unsloth_import import (
    WRITERS,
    UnslothFailed,
    call_unsloth,
    import_unsloth,
    without_files_of_embeddings,
)


def test_unsloth_is_not_imported_after_what_it_patches(section, cpu) -> None:
    with pytest.raises(UnslothFailed) as caught:
        import_unsloth(section(), cpu)
    assert "transformers" in caught.value.reason
    assert caught.value.reason.endswith("was imported before it")
    assert isinstance(caught.value, UserError)
    assert "unsloth" not in sys.modules


@pytest.mark.parametrize("kind", [torch.AcceleratorError, torch.OutOfMemoryError, RuntimeError, AttributeError])
def test_its_failures_are_told_from_those_of_the_device(section, cpu, monkeypatch, kind: type[Exception]) -> None:
    """A new process without it would meet a dead device too."""

    def fail(*_: Any) -> None:
        raise kind("it is broken")

    is_of_device = kind in (torch.AcceleratorError, torch.OutOfMemoryError)
    with pytest.raises(kind if is_of_device else UnslothFailed, match="it is broken"):
        call_unsloth(fail)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(unsloth_import, "IMPORTED_AFTER", ())
    monkeypatch.setattr(unsloth_import.importlib, "import_module", fail)
    with pytest.raises(torch.AcceleratorError if kind is torch.AcceleratorError else UnslothFailed):
        import_unsloth(section(), cpu)


def test_nothing_is_written_of_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an adapter is attached; afterwards its functions are what they were, whatever happened."""
    theirs = SimpleNamespace(**dict.fromkeys(WRITERS, print))
    monkeypatch.setitem(sys.modules, "unsloth.models.llama", theirs)
    with pytest.raises(UnslothFailed), without_files_of_embeddings():
        assert [getattr(theirs, name)("model", "folder") for name in WRITERS] == [None, None]
        assert print not in vars(theirs).values()
        raise UnslothFailed("no adapter")
    assert vars(theirs) == dict.fromkeys(WRITERS, print)
    monkeypatch.delitem(sys.modules, "unsloth.models.llama")
    with without_files_of_embeddings():
        pass


def test_what_it_ignores_is_told(section, cpu) -> None:
    def ignored(adapter: AdapterSection, *, use_reentrant: bool, **changes: str) -> list[str]:
        arguments = {"use_reentrant": use_reentrant}
        return _ignored(LoadRequest(section(**changes), adapter, None, None, cpu, arguments))

    adapter = AdapterSection(lora_dropout=0.05)
    assert ignored(adapter, use_reentrant=True, attn_implementation="eager") == [
        "lora_dropout: 0.05 loses Unsloth's fused LoRA kernels; 0 keeps them",
        "attn_implementation: eager is ignored, Unsloth chooses its own",
        "gradient_checkpointing_kwargs: ignored, Unsloth checkpoints in its own way",
    ]
    assert ignored(AdapterSection(), use_reentrant=False) == []


RESTART = """
import sys
from component.config.schema import ModelSection
from component.pipeline.choose_loader import choose_loader, restart_with_vanilla
from component.runtime.hardware import Hardware

assert sys.argv[1:] == ["an argument"]
model = ModelSection(model_name_or_path=FOLDER, use_unsloth=True, max_seq_length=64)
choice = choose_loader(model, "sft", Hardware("cuda", "test A100", 2**36, 2**36, (8, 0), True, 1))
assert not {"torch", "transformers", "peft", "bitsandbytes"} & set(sys.modules)
if choice.got == "unsloth":
    restart_with_vanilla("it was only a test")
print(choice.got, choice.reason)
"""


def test_a_restarted_process_is_vanilla_and_knows_why(tiny_model, repository, tmp_path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RESTART.replace("FOLDER", repr(str(tiny_model))))
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    result = subprocess.run(
        [sys.executable, str(script), "an argument"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "vanilla" in result.stdout
    if "installed" not in result.stdout:
        assert result.stdout.strip() == "vanilla Unsloth failed in this run: it was only a test"

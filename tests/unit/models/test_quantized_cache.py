"""Weights from the cache are those that quantizing makes, bit for bit; what is damaged is made anew."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from component.models import quantized_cache
from component.models.checkpoint_files import describe_checkpoint
from component.models.loaded import LoadedModel
from component.models.quantization import dequantize
from component.models.quantized_cache import quantized_entries
from component.models.quantized_entry import read_entry
from component.pipeline.cached_data import clear_cache, list_cache


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep weights of tiny models too."""
    monkeypatch.setattr(quantized_cache, "MIN_CHECKPOINT_BYTES", 0)


@pytest.fixture
def load_kept(load: Callable[..., LoadedModel], tmp_path: Path, small: None) -> Callable[..., LoadedModel]:
    """`load` with a cache of its own."""

    def build(**changes: Any) -> LoadedModel:
        return load(cache_dir=str(tmp_path / "cache"), **{"quantized_cache": True, **changes})

    return build


def state_of(loaded: LoadedModel) -> str:
    return loaded.got["quantized_cache"].partition(":")[0]


def numbers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every stored number: packed weights, their constants, what is not quantized, the adapter."""
    return {name: value for name, value in model.state_dict().items() if torch.is_tensor(value)}


def loss_and_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    ids = torch.arange(12).reshape(2, 6)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    return [loss.detach(), *gradients]


@pytest.mark.parametrize("changes", [{}, {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}])
def test_the_same_bits(load, load_kept, changes: dict[str, Any]) -> None:
    fresh, first, second = load(**changes, quantized_cache=False), load_kept(**changes), load_kept(**changes)
    assert [state_of(loaded) for loaded in (fresh, first, second)] == ["off", "written", "read"]
    expected, found = numbers(fresh.model), numbers(second.model)
    assert expected.keys() == found.keys()
    assert any(name.endswith("absmax") for name in expected)
    for name, value in expected.items():
        assert value.dtype == found[name].dtype and torch.equal(value, found[name]), name
    for value, same in zip(loss_and_gradients(fresh.model), loss_and_gradients(second.model), strict=True):
        assert torch.equal(value, same)
    assert second.got["quantization"] == fresh.got["quantization"]
    assert second.notices == fresh.notices


def test_the_run_is_one_on_the_original(load_kept, tiny_model: Path, tmp_path: Path) -> None:
    load_kept()
    loaded = load_kept()
    assert loaded.peft_config.base_model_name_or_path == str(tiny_model)
    loaded.model.save_pretrained(tmp_path / "adapter")
    written = [path.read_bytes() for path in (tmp_path / "adapter").iterdir() if path.suffix in (".json", ".md")]
    assert written and not any(b"cache" in content and b"weights/" in content for content in written)
    base = loaded.model.get_base_model()
    assert base.config._name_or_path == base.name_or_path == str(tiny_model)
    merged = load_kept().model.unload()
    dequantize(merged, dtype=torch.float32)
    merged.save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())


@pytest.mark.parametrize("damage", ["weights", "list", "missing", "lies"])
def test_a_damaged_entry_is_made_anew(load_kept, tmp_path: Path, damage: str) -> None:
    load_kept()
    kept = quantized_entries(str(tmp_path / "cache"))
    (entry,) = kept.entries()
    weights = kept.path(entry.key) / "model.safetensors"
    if damage == "weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "list":
        (kept.path(entry.key) / "entry.json").write_text("{")
    elif damage == "missing":
        weights.unlink()
    else:  # whole by its own list, and no checkpoint
        (kept.path(entry.key) / "config.json").write_text("{}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantized_cache, "is_whole", lambda folder, stored: True)
            again = load_kept()
        assert "is made anew" in again.notices[-1]
        return
    again = load_kept()
    assert state_of(again) == "written" and "is made anew: damaged" in again.notices[-1]
    assert state_of(load_kept()) == "read"
    assert read_entry(kept.path(entry.key)) is not None


def test_what_decides_the_weights(load_kept, machines, tmp_path: Path) -> None:
    load_kept()
    assert state_of(load_kept(seed=7, max_seq_length=32, attn_implementation="eager")) == "read"
    assert state_of(load_kept(bnb_4bit_use_double_quant=False)) == "written"
    assert state_of(load_kept(hardware=machines["fast cpu"])) == "written"
    assert len(quantized_entries(str(tmp_path / "cache")).entries()) == 3


def test_a_checkpoint_is_known_by_what_any_program_changes(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "model.safetensors"
    before = describe_checkpoint(folder)
    os.utime(file, ns=(1, 1))
    touched = describe_checkpoint(folder)
    assert touched != before
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # in the last block that is looked at
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert describe_checkpoint(folder) != touched


def test_what_is_not_kept(load, tmp_path: Path, monkeypatch) -> None:
    """Small checkpoints, 16 bit, 8 bit, and what the cache has no room for; the run goes on in any case."""
    folder = str(tmp_path / "cache")
    assert load(cache_dir=folder, quantized_cache=True).got["quantized_cache"] == "off: the checkpoint is small"
    monkeypatch.setattr(quantized_cache, "MIN_CHECKPOINT_BYTES", 0)
    assert "quantized_cache" not in load(cache_dir=folder, quantized_cache=True, train_mode="lora").got
    assert "quantized_cache" not in load(cache_dir=folder, quantized_cache=True, quantization="int8").got
    assert (
        load(cache_dir=folder, quantized_cache=True, cache_max_gib=1e-9).got["quantized_cache"]
        == "not written: it is larger than cache_max_gib"
    )
    (tmp_path / "file").write_text("")
    loaded = load(cache_dir=str(tmp_path / "file"), quantized_cache=True)
    assert state_of(loaded) == "not written" and "cache_dir" in loaded.notices[-1]


def test_the_list_and_the_broom(load_kept, tiny_model: Path, tmp_path: Path) -> None:
    load_kept()
    folder = str(tmp_path / "cache")
    console = Console(file=io.StringIO(), width=400)
    list_cache(folder, console)
    printed = console.file.getvalue()
    assert str(tiny_model) in printed and "nf4, float32, vanilla" in printed
    (entry,) = quantized_entries(folder).entries()
    assert [line.partition(",")[0] for line in clear_cache(folder, [entry.key[:8]], everything=False)] == [
        f"{entry.key[:12]}: removed"
    ]
    assert quantized_entries(folder).entries() == []


def test_an_entry_that_another_process_makes_is_not_waited_for(load_kept, tmp_path: Path) -> None:
    load_kept()
    kept = quantized_entries(str(tmp_path / "cache"))
    (entry,) = kept.entries()
    assert kept.remove(entry.key)
    with kept.lock_if_free(entry.key) as is_free:
        assert is_free
        assert load_kept().got["quantized_cache"] == "not written: another process writes it"
    load_kept()
    hold = kept.hold(entry.key)
    assert not kept.remove(entry.key) and kept.entries()[0].is_held
    del hold
    assert kept.shrink(0) == [entry.key]

"""Weights from the cache are those that quantizing makes, bit for bit; what is damaged is made anew."""

from __future__ import annotations

import errno
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

from component.config.errors import UserError
from component.models import quantized_cache, quantized_entry, vanilla
from component.models.checkpoint_files import describe_checkpoint
from component.models.loaded import LoadedModel
from component.models.quantization import dequantize
from component.models.quantized_cache import quantized_entries
from component.models.quantized_entry import read_entry
from component.pipeline.cached_data import clear_cache, list_cache


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep weights of tiny models too, on a disk that is nearly full."""
    monkeypatch.setattr(quantized_cache, "MIN_CHECKPOINT_BYTES", 0)
    monkeypatch.setattr(quantized_cache, "LEFT_FREE_BYTES", 0)


@pytest.fixture
def load_kept(load: Callable[..., LoadedModel], tmp_path: Path, small: None) -> Callable[..., LoadedModel]:
    """`load` with a cache of its own, which is on by default."""

    def build(**changes: Any) -> LoadedModel:
        return load(cache_dir=str(tmp_path / "cache"), **changes)

    return build


def state_of(loaded: LoadedModel) -> str:
    return loaded.got["quantized_cache"].partition(":")[0]


def told_by(loaded: LoadedModel) -> list[str]:
    return [notice for notice in loaded.notices if notice.startswith("quantized_cache")]


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


def test_it_says_once_where_weights_are_kept_and_how_to_turn_that_off(load_kept, tmp_path: Path) -> None:
    first, second, off = load_kept(), load_kept(), load_kept(quantized_cache=False)
    (entry,) = quantized_entries(str(tmp_path / "cache")).entries()
    folder = tmp_path / "cache/weights"
    (notice,) = told_by(first)
    assert f"0.0 GiB in {folder / entry.key}" in notice and "quantized_cache: false turns this off" in notice
    assert first.got["quantized_cache"] == f"written: {entry.key[:12]}, 0.0 GiB in {folder}"
    assert second.got["quantized_cache"] == f"read: {entry.key[:12]} in {folder}" and not told_by(second)
    assert state_of(off) == "off" and not told_by(off)


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


@pytest.mark.parametrize("damage", ["weights", "list", "missing", "lies", "killed"])
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
    elif damage == "killed":  # before the last file of an entry was there
        (kept.path(entry.key) / "entry.json").rename(kept.path(entry.key) / "entry.json.tmp")
    else:  # whole by its own list, and no checkpoint
        (kept.path(entry.key) / "config.json").write_text("{}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantized_cache, "is_whole", lambda folder, stored: True)
            again = load_kept()
        assert "is made anew" in told_by(again)[0] and state_of(again) == "written"
        assert state_of(load_kept()) == "read"
        return
    again = load_kept()
    if damage != "killed":
        assert "is made anew: damaged" in told_by(again)[0]
    assert state_of(again) == "written"
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
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    assert describe_checkpoint(folder) != before
    before = describe_checkpoint(folder)
    os.utime(file, ns=(1, 1))
    touched = describe_checkpoint(folder)
    assert touched != before
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # in the last block that is looked at
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert describe_checkpoint(folder) != touched


@pytest.mark.parametrize(
    "changes", [{"train_mode": "lora"}, {"train_mode": "full"}, {"quantization": "int8"}, {"quantized_cache": False}]
)
def test_it_is_silent_where_there_is_nothing_to_keep(load_kept, tmp_path: Path, changes: dict[str, Any]) -> None:
    loaded = load_kept(**changes)
    assert loaded.got.get("quantized_cache", "off").partition(":")[0] == "off"
    assert not told_by(loaded) and not (tmp_path / "cache").exists()


def test_a_small_checkpoint_is_not_kept(load, tmp_path: Path) -> None:
    loaded = load(cache_dir=str(tmp_path / "cache"))
    assert loaded.got["quantized_cache"] == "off: the checkpoint is small"
    assert not told_by(loaded) and not (tmp_path / "cache").exists()


def test_what_has_no_place_is_not_kept_and_the_run_goes_on(load, load_kept, tmp_path: Path, monkeypatch) -> None:
    kept = quantized_entries(str(tmp_path / "cache"))
    (notice,) = told_by(load_kept(cache_max_gib=1e-9))
    assert "are not kept: 0.0 GiB are more than cache_max_gib: 1e-09; quantized_cache: false" in notice
    monkeypatch.setattr(quantized_cache, "LEFT_FREE_BYTES", 2**60)
    loaded = load_kept()
    assert state_of(loaded) == "not written" and "GiB free, and 0.0 GiB and" in told_by(loaded)[0]
    assert not kept.entries()
    (tmp_path / "file").write_text("")
    (notice,) = told_by(load(cache_dir=str(tmp_path / "file")))
    assert "cache_dir" in notice


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), torch.AcceleratorError("CUDA error"), KeyboardInterrupt()],
)
def test_an_interrupted_write_leaves_nothing(load_kept, tmp_path: Path, failure: BaseException) -> None:
    def fail(path: Path) -> None:
        raise failure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized_entry, "_flush", fail)
        if isinstance(failure, OSError):
            (notice,) = told_by(load_kept())
            assert "are not kept: [Errno 28] No space left on device; quantized_cache: false" in notice
        else:
            with pytest.raises(type(failure)):
                load_kept()
    assert not quantized_entries(str(tmp_path / "cache")).entries()
    assert [state_of(load_kept()), state_of(load_kept())] == ["written", "read"]


def test_the_size_is_bounded_before_an_entry_is_written(load_kept, tmp_path: Path, monkeypatch) -> None:
    kept = quantized_entries(str(tmp_path / "cache"))
    load_kept()
    (first,) = kept.entries()
    sizes, write = [], quantized_cache.write_entry

    def look(*arguments: Any, **named: Any) -> None:
        sizes.append(len(kept.entries()))
        write(*arguments, **named)

    monkeypatch.setattr(quantized_cache, "write_entry", look)
    load_kept(bnb_4bit_quant_type="fp4", cache_max_gib=1.5 * first.num_bytes / 2**30)
    (second,) = kept.entries()
    assert second.key != first.key and sizes == [0]


def test_a_cache_that_is_only_read(load_kept, monkeypatch) -> None:
    load_kept()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    loaded = load_kept()
    assert state_of(loaded) == "read" and not told_by(loaded)


def test_no_memory_to_write_an_entry(load_kept, tmp_path: Path, monkeypatch) -> None:
    def refuse(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(quantized_entry, "_flush", refuse)
    loaded = load_kept()
    assert loaded.got["quantized_cache"] == "not written: MemoryError" and len(told_by(loaded)) == 1
    assert not quantized_entries(str(tmp_path / "cache")).entries()


def test_a_home_that_nobody_has() -> None:
    with pytest.raises(UserError, match="^cache_dir: ~nobody_here/x: no such home; set it to the full path"):
        quantized_entries("~nobody_here/x")


def test_one_process_of_a_machine_writes(load_kept, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(quantized_cache, "local_rank", lambda: 1)
    other = load_kept()
    assert state_of(other) == "not written" and not told_by(other) and not (tmp_path / "cache").exists()
    monkeypatch.setattr(quantized_cache, "local_rank", lambda: 0)
    load_kept()
    monkeypatch.setattr(quantized_cache, "local_rank", lambda: 1)
    assert state_of(load_kept()) == "read"


def test_a_checkpoint_that_changes_while_it_is_read_is_not_kept(
    load_kept, tiny_model: Path, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    read = vanilla.load_weights

    def touch(*arguments: Any, **named: Any) -> Any:
        os.utime(folder / "model.safetensors", ns=(1, 1))
        return read(*arguments, **named)

    monkeypatch.setattr(vanilla, "load_weights", touch)
    loaded = load_kept(model_name_or_path=str(folder))
    assert loaded.got["quantized_cache"] == "not written: the files of the checkpoint were changed meanwhile"


def test_a_generation_config_that_contradicts_itself(load_kept, tiny_model: Path, tmp_path: Path) -> None:
    """As some published models have; it is copied, and transformers, which would not save it, is not asked to."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.5}')
    assert [state_of(load_kept(model_name_or_path=str(folder))) for _ in range(2)] == ["written", "read"]


def test_with_a_base_that_is_dequantized(load, load_kept) -> None:
    changes = {"dequantize_base": True}
    fresh, _, kept = load(**changes, quantized_cache=False), load_kept(**changes), load_kept(**changes)
    assert state_of(kept) == "read"
    for name, value in numbers(fresh.model).items():
        assert torch.equal(value, numbers(kept.model)[name]), name


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
        loaded = load_kept()
        assert loaded.got["quantized_cache"] == "not written: another process writes it" and not told_by(loaded)
    load_kept()
    hold = kept.hold(entry.key)
    assert not kept.remove(entry.key) and kept.entries()[0].is_held
    del hold
    assert kept.shrink(0) == [entry.key]

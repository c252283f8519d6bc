"""Whole and half-written checkpoints."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from component.artifacts.checkpoints import (
    check_checkpoint,
    check_safetensors,
    describe_unusable,
    list_checkpoints,
    newest_good_checkpoint,
)
from component.trainers.loss_window import LossWindow
from component.trainers.token_counter import TokenCounter

STATE = {
    "epoch": 0.5,
    "max_steps": 40,
    "num_train_epochs": 1,
    "train_batch_size": 4,
    "log_history": [],
    "stateful_callbacks": {},
}


def write_checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(2)}, path / "adapter_model.safetensors", metadata={"x": "y"})
    (path / "adapter_config.json").write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"x": torch.arange(4)}, path / name)
    write_counts(path)
    (path / "trainer_state.json").write_text(json.dumps({**STATE, "global_step": step}))
    return path


def write_counts(path: Path) -> None:
    TokenCounter().save(path)
    LossWindow(loss_sum=0.5, last_logged_step=3).save(path)


def cut(name: str, size: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:size])

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return change


def test_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-3", "checkpoint-x", "tmp-checkpoint-9", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_a_whole_checkpoint_is_good(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 20)
    assert check_checkpoint(path) is None
    assert newest_good_checkpoint(tmp_path) == path
    assert describe_unusable(tmp_path) == []


def zero(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).write_bytes(b"\0" * 64)

    return change


def write(name: str, content: object) -> Callable[[Path], None]:
    return lambda path: (path / name).write_text(json.dumps(content)) and None


def other_zip(name: str, member: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr(member, "x")

    return change


NO_OPTIMIZER = "no optimizer state: it was saved with save_only_model, or its writing was cut short"
DAMAGES = [
    (remove("trainer_state.json"), "trainer_state.json is missing"),
    (cut("trainer_state.json", 5), "trainer_state.json is cut off or damaged"),
    (cut("trainer_state.json", 0), "trainer_state.json is cut off or damaged"),
    (lambda path: (path / "trainer_state.json").write_text('{"global_step": 10}'), "trainer_state.json is of step 10"),
    (remove("adapter_model.safetensors"), "no weights"),
    (remove("adapter_config.json"), "adapter_config.json is missing"),
    (cut("adapter_model.safetensors", 0), "adapter_model.safetensors is cut off in its header"),
    (cut("adapter_model.safetensors", 40), "adapter_model.safetensors is cut off in its header"),
    (zero("adapter_model.safetensors"), "adapter_model.safetensors has no safetensors header"),
    (remove("optimizer.pt"), "optimizer.pt is missing"),
    (remove("scheduler.pt"), "scheduler.pt is missing"),
    (remove("rng_state.pth"), "rng_state.pth is missing"),
    (remove("optimizer.pt", "scheduler.pt", "rng_state.pth"), NO_OPTIMIZER),
    (cut("optimizer.pt", 0), "optimizer.pt is cut off or empty"),
    (cut("optimizer.pt", 700), "optimizer.pt is cut off or empty"),
    (cut("scheduler.pt", 700), "scheduler.pt is cut off or empty"),
    (cut("rng_state.pth", 700), "rng_state.pth is cut off or empty"),
    (lambda path: (path / "scaler.pt").write_bytes(b""), "scaler.pt is cut off or empty"),
    (write("trainer_state.json", {"global_step": 30}), "trainer_state.json has no usable epoch"),
    (write("trainer_state.json", {**STATE, "global_step": 30, "epoch": "y"}), "trainer_state.json has no usable epoch"),
    (
        write("trainer_state.json", {**STATE, "global_step": 30, "train_batch_size": None}),
        "trainer_state.json has no usable train_batch_size",
    ),
    (remove("token_counts.json"), "token_counts.json is missing"),
    (write("token_counts.json", {"supervised": 1, "real": 2}), "token_counts.json has no usable padded"),
    (cut("token_counts.json", 1), "token_counts.json is cut off or damaged"),
    (remove("loss_window.json"), "loss_window.json is missing"),
    (write("loss_window.json", {"loss_sum": "x", "last_logged_step": 1}), "loss_window.json has no usable loss_sum"),
    (
        write("loss_window.json", {"loss_sum": 1, "last_logged_step": 1, "x": 1}),
        "loss_window.json has unknown keys: x",
    ),
    (write("metrics_window.json", []), "metrics_window.json is cut off or damaged"),
    (write("metrics_window.json", {"kl": [0.5, "x"]}), "metrics_window.json has values that are no numbers"),
    *((other_zip(name, "x"), f"{name} is cut off or empty") for name in ("optimizer.pt", "rng_state.pth")),
    (other_zip("scheduler.pt", "a/data.txt"), "scheduler.pt is cut off or empty"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[reason for _, reason in DAMAGES])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    good = write_checkpoint(tmp_path, 20)
    bad = write_checkpoint(tmp_path, 30)
    damage(bad)
    assert check_checkpoint(bad) == reason
    assert newest_good_checkpoint(tmp_path) == good
    assert describe_unusable(tmp_path) == [f"{bad}: {reason}"]


def test_weights_of_another_size_are_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1) / "adapter_model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert check_safetensors(path) == f"adapter_model.safetensors has {size - 1} bytes instead of {size}"


def test_every_shard_of_an_index_is_checked(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 5)
    (path / "adapter_model.safetensors").unlink()
    (path / "config.json").write_text("{}")
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    save_file({"a": torch.ones(2)}, path / shards[0])
    assert check_checkpoint(path) == f"{shards[1]} is missing"
    save_file({"b": torch.ones(2)}, path / shards[1])
    assert check_checkpoint(path) is None


def test_every_rank_has_its_random_state(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 5)
    for rank in (0, 1):
        shutil.copyfile(path / "rng_state.pth", path / f"rng_state_{rank}.pth")
    (path / "rng_state.pth").unlink()
    assert check_checkpoint(path) is None
    (path / "rng_state_1.pth").write_bytes(b"")
    assert check_checkpoint(path) == "rng_state_1.pth is cut off or empty"


def test_any_cut_of_any_file_is_found(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 5)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        # Cutting JSON's trailing bracket, a zip's directory or a tensor's last byte must never pass.
        for size in {0, 1, len(content) // 2, len(content.rstrip(b"\n")) - 1}:
            file.write_bytes(content[:size])
            assert check_checkpoint(path) is not None, (file.name, size)
        file.write_bytes(content)
    assert check_checkpoint(path) is None


@pytest.mark.parametrize("with_adapter", [False, True])
def test_what_transformers_writes_is_good(tmp_path: Path, with_adapter: bool) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    from component.artifacts.final import remove_pickles
    from component.models.tiny import Shape, build_model

    shape = Shape(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    model = build_model(shape, seed=0, token_ids={"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2})
    if with_adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    rows = [{"input_ids": [0, 5, 6, 1], "labels": [0, 5, 6, 1]}] * 4
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows).train()
    remove_pickles(tmp_path)
    for path in list_checkpoints(tmp_path):
        write_counts(path)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]
    assert describe_unusable(tmp_path) == []
    assert not list(tmp_path.rglob("training_args.bin"))

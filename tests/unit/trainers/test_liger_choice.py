"""Who gets Liger's kernels where the config says auto, what run.json says of it, and that plans reckon with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from component.config.load import load_config
from component.pipeline import prepare
from component.pipeline.build_run import build_run
from component.pipeline.choose_loader import FAILURE_VARIABLE
from component.pipeline.plan_run import plan_config
from component.runtime.hardware import Hardware
from component.trainers import liger
from component.trainers.liger import choose_liger

GPU = Hardware("cuda", "test GPU", 2**36, 2**36, (8, 0), True, 1)
CPU = Hardware("cpu", "test CPU", 2**36, 2**36, None, True, 1)
USUAL = {"task_type": "sft", "loader": "vanilla", "hardware": GPU, "model_type": "llama"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a Liger that knows Llama; it cannot be imported."""
    source = tmp_path / "transformers/monkey_patch.py"
    source.parent.mkdir()
    source.write_text('MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply_to_llama}\nraise ImportError\n')
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(liger, "find_spec", lambda name: found)
    return source


@pytest.mark.parametrize(
    ("changes", "got", "reason"),
    [
        ({}, True, "it has kernels for llama"),
        ({"model_type": "bloom"}, False, "it does not know the family 'bloom'"),
        ({"loader": "unsloth"}, False, "the unsloth loader has its own kernels"),
        ({"hardware": CPU}, False, "it runs on CUDA GPUs, and this is test CPU"),
        ({"is_tiled": True}, False, "it would replace the MLPs that tiled_mlp computes in tiles"),
        ({"task_type": "dpo"}, False, "auto does not take it for task dpo"),
    ],
)
def test_auto(installed: Path, changes: dict[str, object], got: bool, reason: str) -> None:
    assert choose_liger("auto", **{**USUAL, **changes}).to_dict() == {"asked": "auto", "got": got, "reason": reason}


@pytest.mark.parametrize(
    ("changes", "got", "reason"),
    [
        ({}, True, "use_liger_kernel: true"),
        ({"task_type": "dpo"}, True, "use_liger_kernel: true"),
        ({"loader": "unsloth", "is_tiled": True}, False, "use_liger_kernel: true"),
        ({"is_tiled": True}, False, "it would replace the MLPs that tiled_mlp computes in tiles"),
    ],
)
def test_true(changes: dict[str, object], got: bool, reason: str) -> None:
    """The config refuses it with tiled_mlp, but cannot where Unsloth is asked for and another loader is used."""
    choice = choose_liger(True, **{**USUAL, **changes})
    assert choice.to_dict() == {"asked": True, "got": got, "reason": reason}
    assert choice.notices() == ([f"use_liger_kernel: not used: {reason}"] if "tiles" in reason else [])


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_tiles_are_kept_where_unsloth_falls_back(
    task: str, tiny_settings: dict[str, Any], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setenv(FAILURE_VARIABLE, "it was only a test")
    file = {"dpo": {"train_file": str(repository / "data/dummy_dpo.jsonl")}}.get(task, {})
    asked = {"use_unsloth": True, "use_liger_kernel": True, "tiled_mlp": True, "task_type": task}
    settings = {**tiny_settings, **file, **asked, "output_dir": str(tmp_path / "out"), "max_bad_rows": 1.0}
    built = build_run(prepare.prepare(load_config(settings)))
    assert built.context.loader == "vanilla" and built.context.has_tiled_mlp
    assert built.trainer.args.use_liger_kernel is False
    told = "use_liger_kernel: not used: it would replace the MLPs that tiled_mlp computes in tiles"
    assert told in built.context.notices


def test_a_table_that_has_moved_is_told(installed: Path) -> None:
    installed.write_text("TABLE = {}")
    choice = choose_liger("auto", **USUAL)
    assert (choice.got, choice.reason.partition(" in ")[0]) == (
        False, "the installed version has no MODEL_TYPE_TO_APPLY_LIGER_FN",
    )  # fmt: skip


def test_what_is_not_there_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    assert choose_liger("auto", **USUAL).reason == "liger_kernel and triton is not installed"
    assert choose_liger(True, **USUAL).got is True
    assert choose_liger(False, **USUAL).got is False


def test_a_plan_reckons_with_it(installed: Path) -> None:
    def planned(asked: bool | str, **changes: object) -> bool:
        values = {"model_name_or_path": "Qwen/Qwen3-8B", "train_file": "d", "output_dir": "o"}
        return plan_config(
            load_config({**values, "use_liger_kernel": asked, **changes}), "h200"
        ).plan.workload.has_liger

    assert not planned("auto"), "it does not know the family"
    installed.write_text('MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen3": apply_to_qwen3}')
    assert planned("auto") and planned(True) and not planned(False)
    assert not planned("auto", use_unsloth=True) and not planned("auto", task_type="dpo")

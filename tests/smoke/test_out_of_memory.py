"""Out of memory anywhere, a run leaves a checkpoint of its last step and goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from component.config.errors import DeviceMemoryError, UserError
from component.pipeline import run
from component.trainers import packing
from component.trainers.last_step import is_due

#: Of sft_settings.
ADVICE = (
    "go on with: per_device_train_batch_size=1 gradient_accumulation_steps=6 gradient_checkpointing=true "
    "per_device_eval_batch_size=1"
)


@contextlib.contextmanager
def failing(kind: str, place: int) -> Iterator[None]:
    """Lack of memory at the pass of this number, from 0: forward in training, in evaluation, or of the optimizer.

    The optimizer has changed a parameter by then.
    """
    owner, name = (torch.optim.AdamW, "step") if kind == "update" else (LlamaForCausalLM, "forward")
    original, count = getattr(owner, name), 0

    @functools.wraps(original)  # the Trainer reads its arguments
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        # Before training, the loss that is chosen is tried.
        is_step = kind == "update" or "num_items_in_batch" in kwargs or not self.training
        counts = is_step and (kind == "update" or self.training is (kind == "training"))
        if counts and count == place:
            count += 1
            if kind == "update":
                self.param_groups[0]["params"][0].data.add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")
        count += counts
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield
    assert count > place, "training did not come there"


def fail(settings: dict[str, Any], kind: str, place: int) -> tuple[str, ...]:
    with failing(kind, place), pytest.raises(DeviceMemoryError) as raised:
        run(settings)
    assert raised.value.exit_code == 4
    return raised.value.messages


def test_out_of_memory_again_and_again(sft_settings, finished_run, tmp_path, trained_metrics) -> None:
    """In an evaluation, amid a step, at the first step of an epoch, in an update; a step has two micro-batches.

    Dropout draws from the random state, an epoch has three steps, and lines are logged every second one.
    """
    folder = tmp_path / "run"
    settings = {**sft_settings, "output_dir": str(folder)}
    head, start, _ = fail(settings, "evaluation", 0)
    assert head == "out of memory after step 3: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert start == f"{folder}/checkpoint-3 is complete; the run goes on from it"
    assert is_due(folder / "checkpoint-3")
    assert fail(settings, "training", 3)[1].startswith(f"{folder}/checkpoint-4 is complete")
    assert fail(settings, "training", 4)[1].startswith(f"{folder}/checkpoint-6 is complete")
    assert fail(settings, "update", 1)[1] == f"the run goes on from {folder}/checkpoint-6"
    run(settings)

    assert trained_metrics(folder) == trained_metrics(finished_run)
    for name in ("adapter_model.safetensors", "generations.jsonl"):
        assert (folder / name).read_bytes() == (finished_run / name).read_bytes(), name
    attempts = json.loads((folder / "run.json").read_text())["attempts"]
    assert [(attempt["from_step"], attempt["exit_code"]) for attempt in attempts] == [
        (0, 4), (3, 4), (4, 4), (6, 4), (6, 0),
    ]  # fmt: skip


def test_plan_and_advice_are_about_what_ran(sft_settings, finished_run, tmp_path, monkeypatch) -> None:
    """The probe of the loaded model switches `packing: auto` off: rows are those of a run without packing."""
    folder = tmp_path / "run"
    monkeypatch.setattr(packing, "_why_not", lambda *args: "the probe says so")
    advice = fail({**sft_settings, "packing": "auto", "output_dir": str(folder)}, "training", 0)[2]
    assert advice == ADVICE
    plans = [json.loads((run / "run.json").read_text())["plan"]["predicted"] for run in (folder, finished_run)]
    assert plans[0] == plans[1]


def test_the_advice_can_be_taken_in_the_same_folder(sft_settings, finished_run, tmp_path, trained_metrics) -> None:
    """Another micro-batch with the rows of a step kept: the losses are those of the run left alone, up to rounding."""
    folder = tmp_path / "run"
    settings = {**sft_settings, "lora_dropout": 0.0, "output_dir": str(folder)}
    advice = fail(settings, "training", 3)[2]
    assert advice == ADVICE
    changed = dict(item.split("=") for item in advice.removeprefix("go on with: ").split())
    with pytest.raises(UserError, match="global_batch_size: was 6, is 12"):
        run(settings, gradient_accumulation_steps=4)
    run(settings, **changed)
    alone = tmp_path / "alone"
    run({**settings, "output_dir": str(alone)})
    for ours, theirs in zip(trained_metrics(folder), trained_metrics(alone), strict=True):
        assert ours.keys() == theirs.keys() and ours["step"] == theirs["step"]
        for name in ("loss", "eval_loss"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-4)
    manifest = json.loads((folder / "run.json").read_text())
    notices = manifest["attempts"][-1]["notices"]
    assert "per_device_train_batch_size: was 3 in the attempt before, is 1" in notices
    assert len(notices) == 4 and set(notices) <= set(manifest["notices"])


def test_recorded_choice_is_taken_again(sft_settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on as it began where more memory would let it choose otherwise."""
    folder = tmp_path / "run"
    settings = {key: value for key, value in sft_settings.items() if "accumulation" not in key}
    settings |= {
        "per_device_train_batch_size": "auto", "gradient_checkpointing": "auto", "global_batch_size": 6,
        "max_memory_gib": 0.01, "output_dir": str(folder),
    }  # fmt: skip
    fail(settings, "training", 13)
    chosen = json.loads((folder / "run.json").read_text())["auto"]["chosen"]
    assert chosen["per_device_train_batch_size"] == 1 and chosen["gradient_checkpointing"]  # what takes least
    run(settings, max_memory_gib=2)
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["auto"]["chosen"] == chosen and manifest["auto"]["origin"] == "as before"
    assert manifest["attempts"][-1]["notices"] == ["max_memory_gib: was 0.01 in the attempt before, is 2.0"]
    assert manifest["config"]["per_device_train_batch_size"] == "auto"
    assert "per_device_train_batch_size: auto" in (folder / "train_args.yaml").read_text()

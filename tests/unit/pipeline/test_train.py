"""How training ends when it cannot go on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from component.config.errors import DeviceMemoryError
from component.pipeline.open_run import hash_config, identity
from component.pipeline.train import _run_trainer


class OutOfMemoryTrainer:
    """A trainer whose third step does not fit."""

    def __init__(self, batch_size: int) -> None:
        self.args = SimpleNamespace(per_device_train_batch_size=batch_size, gradient_accumulation_steps=3)
        self.state = SimpleNamespace(global_step=2)

    def train(self, resume_from_checkpoint: str | None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has no more.")


@pytest.mark.parametrize(
    ("batch_size", "advice"),
    [
        (8, "per_device_train_batch_size=4 gradient_accumulation_steps=6"),
        (1, "a smaller max_seq_length, gradient_checkpointing=true or train_mode=qlora"),
    ],
)
def test_out_of_memory_becomes_advice(batch_size: int, advice: str) -> None:
    with pytest.raises(DeviceMemoryError) as raised:
        _run_trainer(OutOfMemoryTrainer(batch_size), Path("run/checkpoint-2"))
    assert raised.value.exit_code == 4
    assert raised.value.messages == (
        "out of memory at step 3: CUDA out of memory. Tried to allocate 2 GiB.",
        f"run again with {advice}; checkpoints before this step are kept",
    )


def test_identity_of_a_config() -> None:
    """What only changes how a run looks does not count, nor whether a number was written 500 or 500.0."""
    assert identity({"save_steps": 500.0, "lora_dropout": 0.5, "run_name": "a"}) == {
        "save_steps": 500,
        "lora_dropout": 0.5,
    }
    assert hash_config({"save_steps": 500}) == hash_config({"save_steps": 500.0, "output_dir": "elsewhere"})
    assert hash_config({"save_steps": 500}) != hash_config({"save_steps": 501})

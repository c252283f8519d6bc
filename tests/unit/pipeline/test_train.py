"""How training ends when it cannot go on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from component.config.errors import DeviceMemoryError
from component.pipeline.open_run import hash_config, identity
from component.pipeline.train import memory_advice


@pytest.mark.parametrize(
    ("batch_size", "advice"),
    [
        (8, "per_device_train_batch_size=4 gradient_accumulation_steps=6"),
        (1, "a smaller max_seq_length, gradient_checkpointing=true or train_mode=qlora"),
    ],
)
def test_out_of_memory_becomes_advice(batch_size: int, advice: str) -> None:
    args = SimpleNamespace(per_device_train_batch_size=batch_size, gradient_accumulation_steps=3)
    trainer = SimpleNamespace(args=args, state=SimpleNamespace(global_step=2))
    with pytest.raises(DeviceMemoryError) as raised, memory_advice(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has no more.")
    assert raised.value.exit_code == 4
    assert raised.value.messages == (
        "out of memory after step 2: CUDA out of memory. Tried to allocate 2 GiB.",
        f"run again with {advice}; checkpoints so far are kept",
    )


def test_identity_of_a_config() -> None:
    """What only changes how a run looks does not count, nor whether a number was written 500 or 500.0."""
    assert identity({"save_steps": 500.0, "lora_dropout": 0.5, "run_name": "a"}) == {
        "save_steps": 500,
        "lora_dropout": 0.5,
    }
    assert hash_config({"save_steps": 500}) == hash_config({"save_steps": 500.0, "output_dir": "elsewhere"})
    assert hash_config({"save_steps": 500}) != hash_config({"save_steps": 501})

"""Which settings make a run another one."""

from __future__ import annotations

from typing import Any

import pytest

from component.pipeline.open_run import hash_config, identity


def test_identity_of_a_config() -> None:
    """What only changes how a run looks does not count, nor whether a number was written 500 or 500.0."""
    assert identity({"save_steps": 500.0, "lora_dropout": 0.5, "run_name": "a"}) == {
        "save_steps": 500,
        "lora_dropout": 0.5,
    }
    assert hash_config({"save_steps": 500}) == hash_config({"save_steps": 500.0, "output_dir": "elsewhere"})
    assert hash_config({"save_steps": 500}) != hash_config({"save_steps": 501})


@pytest.mark.parametrize(
    ("values", "is_same"),
    [
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, True),
        ({"per_device_train_batch_size": "auto", "gradient_accumulation_steps": None, "global_batch_size": 16}, True),
        ({"gradient_checkpointing": "auto", "dequantize_base": True, "max_memory_gib": 8.0}, True),
        ({"per_device_eval_batch_size": 1, "checkpoint_skip_layers": 3, "gradient_checkpointing_kwargs": None}, True),
        ({"per_device_train_batch_size": 2}, False),
        ({"global_batch_size": 32}, False),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "dataloader_drop_last": True}, False),
        ({"packing": True}, False),
    ],
)
def test_what_trades_memory_for_time_is_no_part_of_it(values: dict[str, Any], is_same: bool) -> None:
    """The rows of a step are, whichever keys say them."""
    run = {
        "task_type": "sft", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
        "dataloader_drop_last": values.get("dataloader_drop_last", False), "packing": False,
    }  # fmt: skip
    assert (identity(run) == identity({**run, **values})) is is_same


def test_rows_of_a_step_are_those_of_all_processes() -> None:
    """The same rows on half as many processes are the same run; the same accumulation is another."""
    run = {"task_type": "sft", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    on_two = identity(run, 2)
    assert identity({**run, "gradient_accumulation_steps": 8}, 1) == on_two
    assert identity(run, 1) != on_two

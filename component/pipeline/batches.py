"""From the rows of an optimizer step to micro-batches, over the processes that there are."""

from __future__ import annotations

from component.config.batches import AUTO
from component.config.errors import UserError
from component.config.load import Config
from component.config.settle import with_values
from component.runtime.distributed import world_size


def settle_batches(config: Config) -> Config:
    """Set gradient_accumulation_steps where global_batch_size decides it and the micro-batch is known.

    Raises:
        UserError: the rows of a step do not divide among processes and micro-batches.
    """
    training = config.training
    if training.global_batch_size is None:
        return config
    per_process = rows_per_process(config)
    micro_batch = training.per_device_train_batch_size
    if micro_batch == AUTO:
        return config
    if per_process % micro_batch:
        raise UserError(
            f"global_batch_size: {training.global_batch_size} rows on {world_size()} processes are {per_process} each, "
            f"no multiple of per_device_train_batch_size {micro_batch}; change one of them, or set it to auto"
        )
    return with_values(config, {"gradient_accumulation_steps": per_process // micro_batch})


def rows_per_process(config: Config) -> int:
    """Rows of an optimizer step on one device.

    Raises:
        UserError: the processes cannot share them evenly.
    """
    training = config.training
    total = training.global_batch_size
    if total is None:
        return training.per_device_train_batch_size * training.gradient_accumulation_steps
    if total % world_size():
        raise UserError(
            f"global_batch_size: {total} rows cannot be shared evenly by {world_size()} processes; use a multiple of it"
        )
    return total // world_size()

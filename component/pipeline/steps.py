"""How many optimizer steps a run has, and of how many rows."""

from __future__ import annotations

import math

from component.config.schema import TrainingSection
from component.runtime.distributed import world_size


def num_rows_per_step(training: TrainingSection) -> int:
    """Rows in an optimizer step, over all processes."""
    if training.global_batch_size is not None:
        return training.global_batch_size
    return training.per_device_train_batch_size * training.gradient_accumulation_steps * world_size()


def num_optimizer_steps(training: TrainingSection, num_rows: int) -> int:
    """Optimizer steps of a run over `num_rows` rows, a pack being one; the last step of an epoch may hold fewer."""
    if training.max_steps > 0:
        return training.max_steps
    rows_per_batch = training.per_device_train_batch_size * world_size()
    round_batches = math.floor if training.dataloader_drop_last else math.ceil
    batches = round_batches(num_rows / rows_per_batch)
    return math.ceil(training.num_train_epochs * max(1, math.ceil(batches / training.gradient_accumulation_steps)))

"""Whether the disk holds what a run will write."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from component.config.errors import MachineError
from component.config.schema import TrainingSection

if TYPE_CHECKING:
    from torch import nn

#: Adam's two moments in float32; 8-bit optimizers keep one byte for each.
OPTIMIZER_BYTES_PER_PARAMETER = 8
EIGHT_BIT_OPTIMIZER_BYTES_PER_PARAMETER = 2


def check_disk(training: TrainingSection, model: nn.Module, num_steps: int, folder: Path) -> None:
    """Compare the free disk with the checkpoints and the final model of a run.

    Raises:
        MachineError: there is too little; with both sizes and what to change.
    """
    needed = required_bytes(training, model, num_steps)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError(
            f"output_dir: {folder.resolve()} has {free / 2**30:.1f} GiB free and the run writes up to "
            f"{needed / 2**30:.1f} GiB; free some, or lower save_total_limit"
        )


def required_bytes(training: TrainingSection, model: nn.Module, num_steps: int) -> int:
    """Bytes of the final model and of all checkpoints that are kept at one time; from above, for Adam's states."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainable)
    is_8bit = "8bit" in training.optim
    per_parameter = EIGHT_BIT_OPTIMIZER_BYTES_PER_PARAMETER if is_8bit else OPTIMIZER_BYTES_PER_PARAMETER
    optimizer = 0 if training.save_only_model else per_parameter * sum(parameter.numel() for parameter in trainable)
    return (weights + optimizer) * _num_checkpoints(training, num_steps) + weights


def _num_checkpoints(training: TrainingSection, num_steps: int) -> int:
    if training.save_strategy == "no":
        return 0
    if training.save_strategy == "steps":
        share = training.save_steps < 1
        number = math.ceil(
            num_steps / max(1, math.ceil(training.save_steps * num_steps) if share else training.save_steps)
        )
    else:
        number = math.ceil(training.num_train_epochs)
    # a new checkpoint is written before the oldest one goes
    return min(number, training.save_total_limit + 1) if training.save_total_limit else number

"""What a machine without a GPU trains: tiny models; real ones would take gigabytes of disk, and then hours."""

from __future__ import annotations

from component.config.errors import UserError
from component.pipeline.benchmark.files import shape_of
from component.runtime.environment import nvidia_gpus

#: Of a model that a CPU trains in minutes.
MOST_PARAMETERS = 100_000_000


def check_device(
    model: str, *, instead: str = "take --quick without --model, which trains a tiny one on the CPU"
) -> None:
    """Check that a model can be trained here, before anything is made for it.

    Args:
        model: a folder or the name of a shape; one whose layers the planner does not know is not held back.
        instead: what the command has for a CPU.

    Raises:
        UserError: it is too large for a CPU and there is no NVIDIA GPU, or there is no such model.
    """
    shape = shape_of(model)
    if shape is not None and shape.num_parameters > MOST_PARAMETERS and not nvidia_gpus():
        raise UserError(
            f"--model: {model} has {shape.num_parameters / 1e6:,.0f} million parameters, and nvidia-smi finds no "
            f"NVIDIA GPU here; run it where there is one, or {instead}"
        )

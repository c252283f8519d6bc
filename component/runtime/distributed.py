"""Ranks and devices of this process, from the launcher's environment variables; torch is not imported."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from component.config.errors import MachineError

NVIDIA_PROC_FOLDER = Path("/proc/driver/nvidia/gpus")

#: Launcher -> its words, and options -> what they count: processes of the run, those of a machine, or machines.
LAUNCHERS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "torchrun": (("torchrun",), {"--nnodes": "machines", "--nproc_per_node": "here"}),
    "accelerate": (("accelerate", "launch"), {"--num_machines": "machines", "--num_processes": "all"}),
    "deepspeed": (("deepspeed",), {"--num_nodes": "machines", "--num_gpus": "here"}),
}
#: Variable that one launcher alone sets -> which; transformers sets others of accelerate's itself.
LAUNCHER_MARKS = {
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "accelerate",
    "ACCELERATE_CONFIG_DS_FIELDS": "accelerate",
    "CROSS_SIZE": "deepspeed",
}


def has_launcher() -> bool:
    """Whether torchrun, accelerate or deepspeed started this process as one of a group.

    They all set LOCAL_RANK; some job schedulers set RANK and WORLD_SIZE for whole machines, which is no launcher.
    """
    return _number("LOCAL_RANK", default=-1) >= 0


def rank() -> int:
    """Number of this process among all of the run, 0 without a launcher."""
    return _number("RANK", default=0) if has_launcher() else 0


def local_rank() -> int:
    """Number of this process on this machine, 0 without a launcher."""
    return _number("LOCAL_RANK", default=0) if has_launcher() else 0


def world_size() -> int:
    """Number of processes of the run, 1 without a launcher."""
    return _number("WORLD_SIZE", default=1) if has_launcher() else 1


def is_main_process() -> bool:
    """Whether this process writes the run folder and talks to the user."""
    return rank() == 0


def launcher_words() -> list[str]:
    """What stands before `train.py` on the command line that started this run, with its number of processes.

    Options that a launcher does not hand on, such as its own config file or where machines meet, are not known here.
    """
    if not has_launcher():
        return ["python"]
    size = world_size()
    here = _number("LOCAL_WORLD_SIZE", default=_number("LOCAL_SIZE", default=size))
    machines = max(1, size // max(1, here))
    name = next((name for variable, name in LAUNCHER_MARKS.items() if variable in os.environ), "torchrun")
    words, options = LAUNCHERS[name]
    numbers = {"all": size, "here": here, "machines": machines}
    return [*words, *(f"{key}={numbers[of]}" for key, of in options.items() if of != "machines" or machines > 1)]


def use_one_gpu() -> str | None:
    """Make exactly one GPU visible unless a launcher gave each process its own.

    With several visible GPUs and no launcher, transformers would multiply the batch and wrap the model in DataParallel.
    CUDA reads CUDA_VISIBLE_DEVICES once, when it is initialised, so this must come before; torch is not needed.

    Returns:
        A notice for the user when there are more GPUs than the one that is used.
    """
    if has_launcher():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        num_gpus, chosen = count_nvidia_gpus(), "0"
    else:
        names = [name.strip() for name in visible.split(",")]
        num_gpus, chosen = len(names), names[0]
    if visible is None or num_gpus > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = chosen
    if num_gpus < 2:
        return None
    return f"one of {num_gpus} GPUs is used (CUDA_VISIBLE_DEVICES={chosen}); torchrun or accelerate launch use more"


def count_nvidia_gpus() -> int:
    """Number of NVIDIA GPUs of this machine, 0 where neither the driver nor nvidia-smi tells."""
    if NVIDIA_PROC_FOLDER.is_dir():
        return len(list(NVIDIA_PROC_FOLDER.iterdir()))
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        answer = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def _number(name: str, *, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise MachineError(f"environment variable {name}: got {text!r}; launchers set it to a whole number") from None

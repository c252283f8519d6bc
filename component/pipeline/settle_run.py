"""Where a choice is made: for a run whose data is prepared, and for a config that is planned without data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from component.artifacts.checkpoints import list_checkpoints
from component.artifacts.manifest import FILE_NAME as RUN_FILE
from component.artifacts.manifest import Manifest
from component.config.batches import AUTO
from component.config.errors import UserError
from component.config.load import Config
from component.models.model_files import read_adapter_config
from component.models.precision import Precision
from component.pipeline.choose_settings import FUSED, OPTIMIZERS, Settled, Surroundings, open_keys, settle
from component.pipeline.plan_inputs import imagined_hardware, limited, offline_adapter_config, setting_of, size_of
from component.planning.choice import room_on
from component.planning.gpus import CONTEXT_BYTES, GIB, Gpu, describe_hardware
from component.planning.shape import ModelShape, read_shape
from component.runtime.distributed import world_size
from component.runtime.hardware import Hardware

#: Of what is chosen, what is counted; the optimizer has a name, the rest is on or off.
CHOSEN_COUNTS = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    "checkpoint_skip_layers",
)  # fmt: skip


def settle_prepared(
    config: Config,
    hardware: Hardware,
    loader: str,
    precision: Precision,
    model_config: Mapping[str, Any],
    samples: Any,
) -> Settled:
    """Choose for a run on this device.

    Args:
        samples: as `size_of` takes them.

    Raises:
        UserError: output_dir holds a run.json that cannot be read, or a step's rows cannot be shared by the processes.
    """
    if not open_keys(config) and config.training.packing != AUTO:
        return Settled(config, {}, ())
    card = describe_hardware(hardware)
    around = Surroundings(
        shape=read_shape(model_config),
        model_config=model_config,
        setting=setting_of(config, model_config, hardware, loader, precision),
        card=card,
        room=device_room(config, hardware),
        device=hardware.name,
        size_of=lambda settled: size_of(settled, samples),
        start=read_adapter_config(config.model) if open_keys(config) else {},
    )
    return settle(config, around, recorded_choice(config))


def settle_planned(
    config: Config, card: Gpu, loader: str, precision: Precision, shape: ModelShape, model_config: Mapping[str, Any]
) -> Settled:
    """Choose for a card, without data: as if every row had max_seq_length tokens."""
    card = limited(card, config) or card
    around = Surroundings(
        shape=shape,
        model_config=model_config,
        setting=setting_of(config, model_config, imagined_hardware(card), loader, precision),
        card=card,
        room=room_on(card.memory_bytes),
        device=card.title,
        size_of=lambda settled: None,
        start=offline_adapter_config(config.model.model_name_or_path),
    )
    return settle(config, around)


def device_room(config: Config, hardware: Hardware) -> float:
    """Bytes that a choice for this process may reserve on its device.

    What others hold of it now is left to them. Several processes must choose alike: there it is the device's whole
    memory, which all devices of a run share.
    """
    is_cuda = hardware.kind == "cuda"
    free = hardware.free_memory_bytes + (CONTEXT_BYTES if is_cuda else 0)  # of which this process has its own already
    memory = min(free, hardware.total_memory_bytes) if world_size() == 1 else hardware.total_memory_bytes
    cap = config.training.max_memory_gib
    return room_on(memory if cap is None else min(memory, cap * GIB), has_context=is_cuda)


def recorded_choice(config: Config) -> Mapping[str, Any] | None:
    """What the run in output_dir chose, if there is one with something to go on from.

    Raises:
        UserError: its run.json cannot be read, or lacks what the checkpoints cannot be read without.
    """
    folder = Path(config.run.output_dir)
    if not Manifest.exists(folder):
        return None
    manifest = Manifest.load(folder)
    checkpoints, content = list_checkpoints(folder), manifest.content
    if not checkpoints and manifest.status != "finished":
        return None
    chosen, damage = content["auto"].get("chosen"), None
    if chosen is not None and not _is_choice(chosen):
        damage = "auto.chosen holds what cannot be chosen"
    elif checkpoints and content["config"].get("optim") == AUTO and "optim" not in (chosen or {}):
        damage = "auto.chosen does not say whose states the checkpoints hold for optim: auto"
    if damage:
        fix = "restore it (train.log says what was chosen) or use a new output_dir"
        raise UserError(f"{folder / RUN_FILE}: damaged: {damage}; {fix}")
    return chosen


def _is_choice(chosen: Any) -> bool:
    """Whether a record has the form of what is chosen."""
    if not isinstance(chosen, Mapping):
        return False
    counts = [value for key, value in chosen.items() if key in CHOSEN_COUNTS]
    switches = [value for key, value in chosen.items() if key not in (*CHOSEN_COUNTS, "optim")]
    return (
        all(type(value) is int and value >= 0 for value in counts)
        and all(isinstance(value, bool) for value in switches)
        and chosen.get("optim", FUSED) in OPTIMIZERS
    )

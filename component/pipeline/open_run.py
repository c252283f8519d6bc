"""The resume rule: what happens to an output_dir that holds a run already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from component.artifacts.checkpoints import (
    check_checkpoint,
    describe_unusable,
    list_checkpoints,
    newest_good_checkpoint,
)
from component.artifacts.data_page import FILE_NAME as REPORT_FILE
from component.artifacts.histogram import FILE_NAME as LENGTHS_FILE
from component.artifacts.lock import FILE_NAME as LOCK_FILE
from component.artifacts.lock import FolderLock, lock_folder
from component.artifacts.manifest import FILE_NAME as MANIFEST_FILE
from component.artifacts.manifest import Manifest
from component.artifacts.metrics import FILE_NAME as METRICS_FILE
from component.artifacts.metrics import read_metrics
from component.artifacts.plots import FILE_NAME as PLOT_FILE
from component.config.batches import ACCUMULATION, GLOBAL, MICRO_BATCH, why_micro_batch_matters
from component.config.errors import UserError
from component.config.schema import schema_fields
from component.pipeline.prepare import PreparedRun
from component.runtime.distributed import is_main_process, world_size

#: Written at the top of a run folder.
OWN_FILES = (
    MANIFEST_FILE, METRICS_FILE, PLOT_FILE, REPORT_FILE, LENGTHS_FILE, "train.log", "train_args.yaml",
    "generations.jsonl",
)  # fmt: skip
WEIGHTS = ("adapter_model*", "model*.safetensors*", "pytorch_model*")
MAX_SHOWN_PATH = 200


@dataclass(frozen=True)
class OpenedRun:
    """A run folder that may be written.

    Attributes:
        checkpoint: where training goes on from, None for the first step.
        is_finished: the run was finished before; there is nothing to do.
        notices: settings that have changed since the attempt before and may, one line each.
        lock: keeps other processes out of the folder as long as this lives; the main process alone has one.
    """

    manifest: Manifest
    checkpoint: Path | None = None
    is_finished: bool = False
    lock: FolderLock | None = None
    notices: tuple[str, ...] = ()


def open_run(prepared: PreparedRun, content: Mapping[str, Any], resume: str) -> OpenedRun:
    """Open or create the run folder of a prepared run.

    Args:
        content: the manifest's sections for a new run.
        resume: "auto", "never", or the path of a checkpoint.

    Raises:
        UserError: another process writes the folder, it holds another run, or checkpoints of which none can be used;
            nothing was changed.
        MachineError: the folder cannot be written.
    """
    folder = Path(prepared.config.run.output_dir)
    lock = lock_folder(folder) if is_main_process() else None
    if resume == "never":
        _check_new(folder)
        return OpenedRun(Manifest.create(folder, content), lock=lock)
    _check_own_files(folder)
    checkpoints, weights = list_checkpoints(folder), _final_weights(folder)
    if not Manifest.exists(folder):
        if checkpoints or weights:
            found = "checkpoints" if checkpoints else weights[0].name
            raise UserError(f"output_dir: {folder.resolve()} holds {found} but no run.json; choose another folder")
        if resume != "auto":
            raise UserError(f"--resume {_shorten(resume)}: {folder.resolve()} holds no run; use --resume auto")
        return OpenedRun(Manifest.create(folder, content), lock=lock)
    manifest = Manifest.load(folder)
    differences = list(_differences(manifest.content, content))
    if differences and not checkpoints and not weights and manifest.status != "finished":
        logger.warning(f"{folder} holds an attempt that left no checkpoint and had other settings; it is replaced")
        return OpenedRun(Manifest.create(folder, content), lock=lock)
    if differences:
        raise UserError(
            f"output_dir: {folder.resolve()} holds a run with other settings or data; choose another output_dir, "
            "or take these back:",
            *differences,
        )
    if resume == "auto" and manifest.status == "finished":
        return OpenedRun(manifest, is_finished=True, lock=lock)
    checkpoint = _choose_checkpoint(folder, resume)
    if (folder / METRICS_FILE).exists():
        read_metrics(folder)  # its last user would find a damaged line only after training
    changes = tuple(_memory_changes(manifest.content["config"], content["config"])) if checkpoint else ()
    manifest.update(**content)  # loader, environment and what is cosmetic may differ from the attempt before
    return OpenedRun(manifest, checkpoint, lock=lock, notices=changes)


def identity(written: Mapping[str, Any], num_processes: int | None = None) -> dict[str, Any]:
    """The part of a config that decides what is trained; two runs that agree in it may share a folder.

    Keys that are declared cosmetic, or to trade memory for time, are no part of it.

    Whole numbers are the same written as 500 or 500.0.

    Args:
        num_processes: that shared the rows of a step; None for those of now.
    """
    fields = schema_fields()
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in written.items()
        if key in fields and not (fields[key].metadata["cosmetic"] or fields[key].metadata["memory"])
    } | step_identity(written, world_size() if num_processes is None else num_processes)


def step_identity(written: Mapping[str, Any], num_processes: int) -> dict[str, Any]:
    """What of batch sizes decides what is trained: the rows of a step, and the micro-batch where that matters too."""
    if MICRO_BATCH not in written:
        return {}
    micro_batch, total = written[MICRO_BATCH], written.get(GLOBAL)
    if total is None:
        factors = (micro_batch, written.get(ACCUMULATION))
        if not all(type(factor) is int for factor in factors):
            raise UserError(f"run.json: damaged: config has no {GLOBAL}; restore it or use a new output_dir")
        total = factors[0] * factors[1] * num_processes
    return {GLOBAL: total, **({MICRO_BATCH: micro_batch} if why_micro_batch_matters(written) else {})}


def hash_config(written: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the identity of a config."""
    return hashlib.sha256(json.dumps(identity(written), sort_keys=True).encode()).hexdigest()


def _check_new(folder: Path) -> None:
    if any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise UserError(f"--resume never: {folder.resolve()} is not empty; choose a new output_dir or empty it")


def _check_own_files(folder: Path) -> None:
    for name in OWN_FILES:
        if (folder / name).is_dir():
            raise UserError(
                f"output_dir: {folder.resolve() / name} is a folder where the run writes a file; remove it or choose "
                "another output_dir"
            )


def _final_weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern) if path.is_file())


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_PATH else f"{text[:MAX_SHOWN_PATH]}..."


def _choose_checkpoint(folder: Path, resume: str) -> Path | None:
    if resume != "auto":
        path = Path(resume)
        reason = _why_not_from(path, folder)
        if reason:
            raise UserError(f"--resume {_shorten(resume)}: {reason}; name a checkpoint-N folder, or use --resume auto")
        return path
    checkpoint = newest_good_checkpoint(folder)
    unusable = describe_unusable(folder)
    if checkpoint is None and unusable:
        raise UserError(
            f"output_dir: none of the checkpoints in {folder.resolve()} can be resumed from; repair or delete them:",
            *unusable,
        )
    for line in unusable:
        logger.warning(f"checkpoint left out: {line}")
    return checkpoint


def _why_not_from(path: Path, folder: Path) -> str | None:
    """Why a run in `folder` cannot go on from a path that the user has named."""
    try:
        if not path.is_dir():
            return "no such folder"
        if path.resolve().parent != folder.resolve():
            return f"not a checkpoint of {folder}; a model can be trained on by naming it in model_name_or_path"
    except (OSError, ValueError) as error:  # too long, or with a null character
        return f"not a path ({getattr(error, 'strerror', None) or error})"
    return check_checkpoint(path)


def _memory_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before = _completed(before, now)
    for key, item in schema_fields().items():
        if item.metadata["memory"] and before.get(key) != now.get(key):
            yield f"{key}: was {json.dumps(before.get(key))} in the attempt before, is {json.dumps(now.get(key))}"


def _completed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an earlier run with the keys that came later at their defaults: it ran as these have it."""
    fields = schema_fields()
    defaults = {
        key: fields[key].default if fields[key].default_factory is MISSING else fields[key].default_factory()
        for key in now.keys() & fields.keys() - before.keys()
    }
    return {**defaults, **before}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Lines that name each setting, and the data, in which two manifests differ."""
    before = identity(_completed(old["config"], new["config"]), old.get("environment", {}).get("num_processes"))
    now = json.loads(json.dumps(identity(new["config"])))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            yield f"{key}: was {json.dumps(before.get(key))}, is {json.dumps(now.get(key))}"
    for name, value in new["hashes"].items():
        if name != "config" and old["hashes"].get(name) != value:
            yield f"the content of {name} has changed since that run"

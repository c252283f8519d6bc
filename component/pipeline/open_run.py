"""The resume rule: what happens to an output_dir that holds a run already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from component.artifacts.checkpoints import (
    check_checkpoint,
    describe_unusable,
    list_checkpoints,
    newest_good_checkpoint,
)
from component.artifacts.manifest import Manifest
from component.config.errors import UserError
from component.config.schema import schema_fields
from component.pipeline.prepare import PreparedRun


@dataclass(frozen=True)
class OpenedRun:
    """A run folder that may be written.

    Attributes:
        checkpoint: where training goes on from, None for the first step.
        is_finished: the run was finished before; there is nothing to do.
    """

    manifest: Manifest
    checkpoint: Path | None = None
    is_finished: bool = False


def open_run(prepared: PreparedRun, content: Mapping[str, Any], resume: str) -> OpenedRun:
    """Open or create the run folder of a prepared run.

    Args:
        content: the manifest's sections for a new run.
        resume: "auto", "never", or the path of a checkpoint.

    Raises:
        UserError: the folder holds another run, or checkpoints of which none can be used; nothing was changed.
    """
    folder = Path(prepared.config.run.output_dir)
    if resume == "never":
        _check_new(folder)
        return OpenedRun(Manifest.create(folder, content))
    checkpoints = list_checkpoints(folder)
    if not Manifest.exists(folder):
        if checkpoints:
            raise UserError(f"output_dir: {folder.resolve()} holds checkpoints but no run.json; choose another folder")
        if resume != "auto":
            raise UserError(f"--resume {resume}: {folder.resolve()} holds no run; use --resume auto")
        return OpenedRun(Manifest.create(folder, content))
    manifest = Manifest.load(folder)
    differences = list(_differences(manifest.content, content))
    if differences and not checkpoints and manifest.status != "finished":
        logger.warning(f"{folder} holds an attempt that left no checkpoint and had other settings; it is replaced")
        return OpenedRun(Manifest.create(folder, content))
    if differences:
        raise UserError(
            f"output_dir: {folder.resolve()} holds a run with other settings or data; choose another output_dir, "
            "or take these back:",
            *differences,
        )
    if resume == "auto" and manifest.status == "finished":
        return OpenedRun(manifest, is_finished=True)
    checkpoint = _choose_checkpoint(folder, resume)
    manifest.update(**content)  # loader, environment and what is cosmetic may differ from the attempt before
    return OpenedRun(manifest, checkpoint)


def identity(written: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is trained; two runs that agree in it may share a folder.

    Whole numbers are the same written as 500 or 500.0.
    """
    fields = schema_fields()
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in written.items()
        if key in fields and not fields[key].metadata["cosmetic"]
    }


def hash_config(written: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the identity of a config."""
    return hashlib.sha256(json.dumps(identity(written), sort_keys=True).encode()).hexdigest()


def _check_new(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--resume never: {folder.resolve()} is not empty; choose a new output_dir or empty it")


def _choose_checkpoint(folder: Path, resume: str) -> Path | None:
    if resume != "auto":
        path = Path(resume)
        reason = check_checkpoint(path) if path.is_dir() else "no such folder"
        if path.resolve().parent != folder.resolve():
            reason = f"not a checkpoint of {folder}; a model can be trained on by naming it in model_name_or_path"
        if reason:
            raise UserError(f"--resume {resume}: {reason}; name a checkpoint-N folder, or use --resume auto")
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


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Lines that name each setting, and the data, in which two manifests differ."""
    before, now = identity(old["config"]), json.loads(json.dumps(identity(new["config"])))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            yield f"{key}: was {json.dumps(before.get(key))}, is {json.dumps(now.get(key))}"
    for name, value in new["hashes"].items():
        if name != "config" and old["hashes"].get(name) != value:
            yield f"the content of {name} has changed since that run"

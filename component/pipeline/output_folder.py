"""Whether a run may write into its output_dir: a folder of its own, new, empty, or an earlier attempt of the run."""

from __future__ import annotations

import os
from pathlib import Path

from component.artifacts.manifest import Manifest
from component.config.errors import UserError
from component.config.load import Config

FIX = "choose another output_dir"


def check_output_dir(config: Config) -> None:
    """Look at output_dir before anything is prepared for it; nothing is written.

    Raises:
        UserError: it is no folder, cannot be written, belongs to something else, or holds what no run has put there.
    """
    folder = Path(config.run.output_dir)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
        full_path = folder.resolve()
    except (OSError, ValueError) as error:  # a name that is too long, or a character that no name may have
        raise UserError(f"output_dir: {_first_line(error)}; {FIX}") from None
    if exists and not is_folder:
        raise UserError(f"output_dir: {full_path} is not a folder; {FIX}")
    existing = next(parent for parent in (full_path, *full_path.parents) if parent.exists())
    if not existing.is_dir():
        raise UserError(f"output_dir: {existing} is a file, so {full_path} cannot be made; {FIX}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"output_dir: {existing} cannot be written; make it writable, or {FIX}")
    owner = _owner(config, full_path)
    if owner is not None:
        raise UserError(f"output_dir: {full_path} is the folder of {owner}, which a run would overwrite; {FIX}")
    if is_folder and not Manifest.exists(folder):
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if found:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise UserError(f"output_dir: {full_path} holds {shown} and no run.json, so it is not a run; {FIX}")


def _owner(config: Config, folder: Path) -> str | None:
    """The key whose file or folder lies at `folder`, None where it belongs to nothing that the config names."""
    if folder == Path.cwd():
        return "the working directory"
    for key in ("model_name_or_path", "tokenizer_name_or_path"):
        value = getattr(config.model, key)
        if value and Path(value).is_dir() and Path(value).resolve() == folder:
            return key
    for key in ("train_file", "eval_file"):
        for entry in getattr(config.data, key) or ():
            path = Path(entry).resolve()
            if folder in (path, path.parent):
                return key
    return None


def _first_line(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]

"""Merged saving: from a run or adapter folder to a folder that holds the whole model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from component.artifacts.checkpoints import checkpoint_step
from component.artifacts.final import save_final_model
from component.artifacts.strict_json import naming_disk_errors, to_json_text, write_atomically
from component.config.errors import MachineError, RunError, UserError
from component.data.render import Renderer
from component.data.templates import load_chat_template
from component.models.failures import told_as_user_error
from component.models.inference import RUN_SETTINGS_FILE, find_run_settings
from component.models.merging import BaseWeights, MergedModel, merge_adapter
from component.models.model_files import ModelSource, find_source, has_file
from component.runtime.distributed import rank
from component.runtime.logging import configure_logging

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: What was merged, in the folder of the result.
RECORD_FILE = "merge.json"


@dataclass(frozen=True)
class MergeResult:
    """A merged model on disk.

    Attributes:
        num_bytes: of its weights.
        notices: what a user has to know of it, one line each.
    """

    folder: Path
    num_bytes: int
    dtype: str
    notices: tuple[str, ...]


def merge(
    name: str, *, output: str | None = None, dtype: str | None = None, base_weights: BaseWeights = "original"
) -> MergeResult:
    """Merge an adapter into its base and save the whole model with tokenizer, template and generation config.

    Args:
        name: run folder, adapter folder or hub id of an adapter.
        output: new or empty folder; None for one beside a local adapter, with "-merged" added to its name. A checkpoint
            gets one beside its run folder.
        dtype: by torch's name, None for the one in which the base is stored.
        base_weights: see `merge_adapter`.

    Raises:
        UserError: there is no adapter, base or adapter cannot be used, or the folder holds something.
        MachineError: the disk is full, or the place cannot be written.
    """
    configure_logging(None, rank())
    source = find_source(name)
    if source.adapter is None:
        raise UserError(
            f"--model {name}: is a whole model and no adapter, so there is nothing to merge; use it as it is"
        )
    folder = _new_folder(name, output)
    import transformers  # noqa: F401

    configure_logging(None, rank())  # once more: the libraries install handlers of their own when imported
    merged = merge_adapter(source, dtype=dtype, base_weights=base_weights)
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in merged.model.parameters())
    _check_free(folder, num_bytes)
    with _appearing(folder) as unfinished:
        notices = (*merged.notices, *_save(source, merged, unfinished))
        settings = find_run_settings(source.adapter)
        if settings is not None:  # chat and evaluation follow its template options
            shutil.copyfile(settings, unfinished / RUN_SETTINGS_FILE)
        record = {
            "adapter": source.adapter,
            "adapter_revision": source.adapter_revision,
            "base": source.base,
            "base_revision": source.base_revision,
            "base_weights": merged.base_weights,
            "dtype": merged.dtype,
            "notices": notices,
        }
        write_atomically(unfinished / RECORD_FILE, to_json_text(record, indent=2) + "\n")
    return MergeResult(folder, num_bytes, merged.dtype, notices)


def _new_folder(name: str, output: str | None) -> Path:
    if output is None:
        local = Path(name).expanduser()
        if not local.is_dir():
            raise UserError("--output: name a folder; there is a place of its own for local adapters alone")
        output = str(_beside(local.resolve()))
    try:
        folder = Path(output).expanduser()
        if checkpoint_step(folder) is not None and (folder.resolve().parent / RUN_SETTINGS_FILE).is_file():
            raise UserError(
                f"--output {folder}: is the name of a checkpoint in a run folder, and a run would go on from it; "
                "name another folder"
            )
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output {folder}: is a file; name a new or empty folder")
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--output {folder}: is not empty; name a new or empty folder")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a character that no name may have, `~` of nobody
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(f"--output: {reason}; name another folder") from None
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--output {folder}: {existing} cannot be written into; name another folder")
    return folder


def _beside(local: Path) -> Path:
    """A folder beside that of an adapter; for a checkpoint beside its run folder, which is the run's own."""
    if checkpoint_step(local) is not None and (local.parent / RUN_SETTINGS_FILE).is_file():
        return local.parent.with_name(f"{local.parent.name}-{local.name}-merged")
    return local.with_name(f"{local.name}-merged")


def _check_free(folder: Path, num_bytes: int) -> None:
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise MachineError(
            f"--output {folder}: {free / 2**30:.1f} GiB are free there and the model takes {num_bytes / 2**30:.1f} "
            "GiB; free some, or name another folder"
        )


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the place of `folder` when the block ends, and goes if it is left early."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with naming_disk_errors(folder):
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _save(source: ModelSource, merged: MergedModel, folder: Path) -> tuple[str, ...]:
    model, tokenizer = merged.model, merged.tokenizer
    stops: list[int] = []
    if model.can_generate():
        _take_generation_config(source, model)
        own = model.generation_config.eos_token_id
        stops = [] if own is None else list(own) if isinstance(own, list) else [own]
        stops += _stops_of_template(tokenizer)
    if tokenizer.eos_token_id is not None and not stops:
        stops = [tokenizer.eos_token_id]
    if not stops:
        raise UserError(
            f"--model {source.adapter}: neither its generation config nor its tokenizer names a token that ends an "
            "answer; set eos_token in its tokenizer_config.json"
        )
    return save_final_model(model, tokenizer, folder, stops)


def _take_generation_config(source: ModelSource, model: PreTrainedModel) -> None:
    """Put the generation config of a run folder, which knows the stop tokens, in place of the base's."""
    from transformers import GenerationConfig

    name = "generation_config.json"
    if has_file(source.adapter, name, revision=source.adapter_revision):
        with told_as_user_error(f"--model {source.adapter}: its {name}", "mend that file, or remove it"):
            model.generation_config = GenerationConfig.from_pretrained(source.adapter, revision=source.adapter_revision)


def _stops_of_template(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that the chat template ends answers with; none where it cannot be rendered exactly."""
    if not tokenizer.chat_template:
        return []
    with suppress(RunError):
        return list(Renderer(tokenizer, load_chat_template("auto", tokenizer)).stop_token_ids)
    return []

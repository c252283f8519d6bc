"""One entry of the cache of quantized weights: a checkpoint folder of transformers, complete or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.models.checkpoint_files import CONFIG, GENERATION_CONFIG, sample_file
from component.runtime.kept_entries import CACHE_TAG, mark_as_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPLETE = "entry.json"
#: Of one file, which is in main memory while it is written.
MAX_SHARD_SIZE = "2GB"


@dataclass(frozen=True)
class StoredWeights:
    """What an entry says of itself.

    Attributes:
        base: name of the checkpoint that its weights were made of, as the config gave it.
        settings: how they are quantized, in words.
        notices: those of reading that checkpoint.
        files: name -> size and hash; see `sample_file`.
    """

    base: str
    settings: str
    notices: tuple[str, ...]
    files: dict[str, list[Any]]


def read_entry(folder: Path) -> StoredWeights | None:
    """What a complete entry says; None where it is incomplete, or its list of files is damaged."""
    try:
        sealed = json.loads((folder / COMPLETE).read_bytes())
        content = sealed["content"]
        if hashlib.sha256(content.encode()).hexdigest() != sealed["sha256"]:
            return None
        facts = json.loads(content)
        return StoredWeights(**{**facts, "notices": tuple(facts["notices"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_whole(folder: Path, stored: StoredWeights) -> bool:
    """Whether each file is as it was written, as far as its size and samples of it show."""
    try:
        return all(list(sample_file(folder / name)) == facts for name, facts in stored.files.items())
    except OSError:
        return False


def write_entry(
    folder: Path, model: PreTrainedModel, original: Path, *, base: str, settings: str, notices: tuple[str, ...]
) -> None:
    """Write the weights of a quantized model that nothing was done to yet; whatever was in the folder goes.

    The entry is complete only when all of it is on the disk, so that no crash leaves one that lacks a part; a failure
    or Ctrl-C leaves nothing.

    Beside them lie the configuration files of the original, so that a model that is read from here is as if it had been
    read from there.

    Args:
        original: folder of the checkpoint.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        mark_as_cache(folder)
        _write_checkpoint(folder, model, original)
        files = {path.name: list(sample_file(path)) for path in sorted(folder.iterdir()) if path.name != CACHE_TAG}
        content = json.dumps(asdict(StoredWeights(base, settings, notices, files)))
        sealed = json.dumps({"sha256": hashlib.sha256(content.encode()).hexdigest(), "content": content})
        waiting = folder / f"{COMPLETE}.tmp"
        waiting.write_text(sealed, encoding="utf-8")
        for path in folder.iterdir():
            _flush(path)
        os.replace(waiting, folder / COMPLETE)
    finally:
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _write_checkpoint(folder: Path, model: PreTrainedModel, original: Path) -> None:
    from transformers import GenerationConfig

    # The original's is copied below; to save one that contradicts itself, as some models' do, is an error.
    generation, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    finally:
        model.generation_config = generation
    config = json.loads((original / CONFIG).read_bytes())
    # transformers holds the settings that the weights were made with; Unsloth writes others into the model's config.
    config["quantization_config"] = model.hf_quantizer.quantization_config.to_dict()
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    if (original / GENERATION_CONFIG).is_file():
        shutil.copyfile(original / GENERATION_CONFIG, folder / GENERATION_CONFIG)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

"""Weights that are quantized once: kept as a checkpoint of their own, and read from there by the runs that follow.

An entry is used where the same loader, of the same version, would make the same numbers of the same files on the same
kind of device. The run still is one on the original: its name stands in adapters and in run.json.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loguru import logger

from component.config.errors import RunError, UserError
from component.models.checkpoint_files import describe_checkpoint, num_weight_bytes
from component.models.failures import first_line, library_failures
from component.models.model_files import source_folder
from component.models.quantized_entry import COMPLETE, is_whole, read_entry, write_entry
from component.models.request import LoadRequest
from component.models.score_head import SCORED_TASKS
from component.runtime.kept_entries import KeptEntries

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Bytes of weights below which quantizing takes no time worth a place on the disk.
MIN_CHECKPOINT_BYTES = 2**30
#: Of the layout of an entry and what decides its weights.
_VERSION = 1
_PACKAGES = ("bitsandbytes", "safetensors", "torch", "transformers")
_UNSLOTH_PACKAGES = ("unsloth", "unsloth_zoo")
#: What names the place that a model was read from, where libraries look for it.
_NAMES = ("name_or_path", "_name_or_path", "model_name")
#: Room on the disk beside an entry.
_SPARE = 1.1

Made = TypeVar("Made")


def quantized_entries(cache_dir: str | None) -> KeptEntries:
    """The part of the cache that holds quantized weights."""
    return KeptEntries("weights", COMPLETE, cache_dir)


class QuantizedCache:
    """The entry of one load.

    Args:
        loader: by its name, since each quantizes in its own way.
        settings: all that decides how weights become 4-bit ones, JSON-ready.

    Attributes:
        state: what became of it, in words for run.json; None where a load has no 4-bit weights to keep.
        notices: what the user is told.
    """

    def __init__(self, request: LoadRequest, *, loader: str, settings: Mapping[str, Any]) -> None:
        self._request, self._loader, self._settings = request, loader, settings
        self._kept = quantized_entries(request.model.cache_dir)
        self.notices: list[str] = []
        self.state: str | None = None
        self._is_on = _has_entries(request)
        if self._is_on and (reason := self._why_off()) is not None:
            self._is_on, self.state = False, f"off: {reason}"

    def load(
        self,
        *,
        make: Callable[[], Made],
        read: Callable[[Path, tuple[str, ...]], Made],
        base_of: Callable[[Made], tuple[PreTrainedModel, tuple[str, ...]]],
    ) -> Made:
        """Load from the entry, or from the original, which makes one.

        Args:
            make: loads the original.
            read: loads an entry's folder; its second argument are the notices of loading the original.
            base_of: the model that was loaded, and the notices of loading it.
        """
        if not self._is_on:
            return make()
        key = self._key()
        loaded = self._read(key, read, base_of) if key is not None else None
        if loaded is not None:
            return loaded
        made = make()
        self._store(*base_of(made))
        return made

    def _read(self, key: str, read: Callable[..., Made], base_of: Callable[[Made], Any]) -> Made | None:
        folder = self._kept.path(key)
        try:
            hold = self._kept.hold(key)  # until the weights are in memory
        except OSError:
            return None
        stored = read_entry(folder)
        if stored is None or not is_whole(folder, stored):
            return self._give_up(key, "damaged")
        try:
            loaded = read(folder, stored.notices)
        except RunError as error:
            return self._give_up(key, str(error))
        _rename(base_of(loaded)[0], str(folder), self._request.source.base)
        self._kept.mark_used(key)
        self.state = f"read: {key[:12]}"
        del hold
        return loaded

    def _give_up(self, key: str, reason: str) -> None:
        self.notices.append(f"quantized_cache: the entry {key[:12]} could not be read and is made anew: {reason}")
        logger.warning(self.notices[-1])

    def _store(self, model: PreTrainedModel, notices: tuple[str, ...]) -> None:
        """Write the entry; whatever fails in that fails no run."""
        key = self._key()  # known now also where the files had to be fetched first
        if key is None:
            self.state = "off: the files of the checkpoint are not at hand"
            return
        try:
            with self._kept.lock_if_free(key) as is_free:
                reason = self._why_not_stored(model) if is_free else "another process writes it"
                if reason is None:
                    self._write(key, model, notices)
            if reason is not None:
                self.state = f"not written: {reason}"
                return
            removed = self._kept.shrink(self._request.model.cache_max_gib * 2**30)
        except (UserError, *library_failures()) as error:
            shutil.rmtree(self._kept.path(key), ignore_errors=True)
            self.state = f"not written: {first_line(error)}"
            self.notices.append(f"quantized_cache: the quantized weights are not kept: {first_line(error)}")
            return
        self.state = f"written: {key[:12]}"
        if removed:
            logger.info(f"cache_max_gib: {len(removed)} quantized models that were not used for longest were removed")

    def _write(self, key: str, model: PreTrainedModel, notices: tuple[str, ...]) -> None:
        if (stored := read_entry(self._kept.path(key))) is not None and is_whole(self._kept.path(key), stored):
            return  # by another rank, meanwhile
        source = self._request.source
        words = f"{self._request.model.bnb_4bit_quant_type}, {self._request.precision.load_dtype}, {self._loader}"
        write_entry(
            self._kept.path(key), model, source_folder(source), base=source.base, settings=words, notices=notices
        )

    def _why_not_stored(self, model: PreTrainedModel) -> str | None:
        size = model.get_memory_footprint()
        self._kept.folder.mkdir(parents=True, exist_ok=True)
        if size > self._request.model.cache_max_gib * 2**30:
            return "it is larger than cache_max_gib"
        if size * _SPARE > shutil.disk_usage(self._kept.folder).free:
            return "the disk has too little room"
        return None

    def _why_off(self) -> str | None:
        request = self._request
        if not request.model.quantized_cache:
            return "quantized_cache: false"
        if "auto_map" in request.files_config:
            return "the checkpoint brings its own code"
        if _is_sharded():
            return "the weights are sharded over processes while they are loaded"
        size = num_weight_bytes(source_folder(request.source))
        if 0 < size < MIN_CHECKPOINT_BYTES:
            return "the checkpoint is small"
        return None

    def _key(self) -> str | None:
        """Hash of all that decides the weights; None where the files are not here, or cannot be read."""
        request, folder = self._request, source_folder(self._request.source)
        packages = (*_PACKAGES, *(_UNSLOTH_PACKAGES if self._loader == "unsloth" else ()))
        try:
            if not num_weight_bytes(folder):
                return None
            facts = {
                "version": _VERSION,
                "checkpoint": describe_checkpoint(folder),
                "settings": self._settings,
                "dtype": request.precision.load_dtype,
                "loader": self._loader,
                "device": request.hardware.name,
                "packages": [importlib.metadata.version(name) for name in packages],
            }
        except OSError:
            return None
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _has_entries(request: LoadRequest) -> bool:
    model = request.model
    is_4bit = model.train_mode == "qlora" and model.quantization == "int4"
    return is_4bit and request.own_quantization is None and model.task_type not in SCORED_TASKS


def _is_sharded() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled
    from transformers.modeling_utils import is_fsdp_enabled

    return is_deepspeed_zero3_enabled() or is_fsdp_enabled()


def _rename(model: PreTrainedModel, folder: str, base: str) -> None:
    """Let a model be called by the original's name wherever it was called by the entry's."""
    for holder in (model, model.config, model.config.get_text_config()):
        for name in _NAMES:
            if getattr(holder, name, None) == folder:
                setattr(holder, name, base)

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
from component.runtime.distributed import local_rank
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
#: Of the disk, which also takes the run's checkpoints.
LEFT_FREE_BYTES = 10 * 2**30
#: An entry to the parameters in it, whose constants of quantization are no parameters.
_ENTRY_TO_PARAMETERS = 1.1
_TURN_OFF = "quantized_cache: false turns this off"

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
        self._is_unreadable = False
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
        self._store(key, *base_of(made))
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
            self._is_unreadable = True
            return self._give_up(key, str(error))
        _rename(base_of(loaded)[0], str(folder), self._request.source.base)
        self._kept.mark_used(key)
        self.state = f"read: {key[:12]} in {self._kept.folder}"
        logger.info(f"the 4-bit weights were read from {folder}, where an earlier run has kept them; {_TURN_OFF}")
        del hold
        return loaded

    def _give_up(self, key: str, reason: str) -> None:
        self.notices.append(f"quantized_cache: the entry {key[:12]} could not be read and is made anew: {reason}")
        logger.warning(self.notices[-1])

    def _store(self, before: str | None, model: PreTrainedModel, notices: tuple[str, ...]) -> None:
        """Write the entry; whatever fails in that fails no run, but a device that does not answer any more.

        Args:
            before: the key when the load began.
        """
        import torch

        if (reason := self._why_off()) is not None:  # known now also where the files had to be fetched first
            self.state = f"off: {reason}"
        elif (key := self._key()) is None:
            self.state = "off: the files of the checkpoint are not at hand"
        elif before not in (None, key):
            self.state = "not written: the files of the checkpoint were changed meanwhile"
        elif local_rank() != 0:
            self.state = "not written: the first process of a machine does that"
        else:
            try:
                with self._kept.lock_if_free(key) as is_free:
                    if is_free:
                        self._write(key, model, notices)
                    else:
                        self.state = "not written: another process writes it"
            except torch.AcceleratorError:
                raise
            except (UserError, MemoryError, *library_failures()) as error:
                self._leave(first_line(error))

    def _write(self, key: str, model: PreTrainedModel, notices: tuple[str, ...]) -> None:
        folder, source = self._kept.path(key), self._request.source
        if (stored := read_entry(folder)) is not None and is_whole(folder, stored):
            if not self._is_unreadable:
                self.state = "not written: another process has written it"
                return
            try:
                _alone = self._kept.hold_alone(key)
            except OSError:
                self.state = "not written: another process reads the entry that this one could not read"
                return
        if (reason := self._make_room(model)) is not None:
            self._leave(reason)
            return
        words = f"{self._request.model.bnb_4bit_quant_type}, {self._request.precision.load_dtype}, {self._loader}"
        write_entry(folder, model, source_folder(source), base=source.base, settings=words, notices=notices)
        size = _gib(sum(path.stat().st_size for path in folder.iterdir()))
        self.state = f"written: {key[:12]}, {size} in {self._kept.folder}"
        self.notices.append(
            f"quantized_cache: the 4-bit weights are kept for later runs, {size} in {folder}; "
            f"script/cache.py lists and removes them, {_TURN_OFF}"
        )

    def _leave(self, reason: str) -> None:
        self.state = f"not written: {reason}"
        self.notices.append(f"quantized_cache: the 4-bit weights are not kept: {reason}; {_TURN_OFF}")

    def _make_room(self, model: PreTrainedModel) -> str | None:
        """Remove what was not used for longest; says why an entry has no place all the same."""
        max_gib, size = self._request.model.cache_max_gib, model.get_memory_footprint() * _ENTRY_TO_PARAMETERS
        if size > max_gib * 2**30:
            return f"{_gib(size)} are more than cache_max_gib: {max_gib:g}"
        if removed := self._kept.shrink(max_gib * 2**30 - size):
            logger.info(f"cache_max_gib: {len(removed)} quantized models that were not used for longest were removed")
        free = shutil.disk_usage(self._kept.folder).free
        if free < size + LEFT_FREE_BYTES:
            needed = f"{_gib(size)} and {_gib(LEFT_FREE_BYTES)} to spare are needed"
            return f"{self._kept.folder} has {_gib(free)} free, and {needed}"
        return None

    def _why_off(self) -> str | None:
        request = self._request
        if not request.model.quantized_cache:
            return "quantized_cache: false"
        if "auto_map" in request.files_config:
            return "the checkpoint brings its own code"
        size = num_weight_bytes(source_folder(request.source))
        if 0 < size < MIN_CHECKPOINT_BYTES:
            return "the checkpoint is small"
        if _is_sharded():
            return "the weights are sharded over processes while they are loaded"
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


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


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

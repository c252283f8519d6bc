"""Unsloth's import, which patches the whole process, and calls into it: quiet, their failures told apart."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from loguru import logger

from component.config.errors import MachineError, RunError
from component.config.schema import ModelSection
from component.models.failures import first_line, library_failures
from component.models.model_files import configure_hub, find_model, read_source_config
from component.models.support import is_fast_family
from component.runtime.logging import demote_to_debug

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware

#: Unsloth replaces parts of these, so they must be imported after it.
IMPORTED_AFTER = ("transformers", "trl", "peft")
#: GiB that the scores of one part of its loss may take, read at its import (unsloth_zoo, fused_losses/fused_linear.py).
#: UNSLOTH_CE_LOSS_TARGET_GB would have it take another, older loss.
LOSS_VARIABLE = "UNSLOTH_LOGPROB_CHUNK_GB"
#: With other values than these it takes that older loss (unsloth_zoo, fused_losses/cross_entropy_loss.py), or returns
#: the scores of all tokens.
USUAL_LOSS = {
    "UNSLOTH_CE_LOSS_TARGET_GB": "",
    "UNSLOTH_CE_LOSS_N_CHUNKS": "",
    "UNSLOTH_CHUNKED_CE": "1",
    "UNSLOTH_FUSED_CE_COMPILE_DISABLE": "0",
    "UNSLOTH_RETURN_LOGITS": "0",
}
#: Its switch, read at its import, for norms that keep what they give, which the projections behind them keep anyway,
#: instead of their input: an eighth to a sixth of a layer's activations. The backward pass divides by the norm's
#: weights to have the input again, which rounds it; trained weights keep the input.
NORM_VARIABLE = "UNSLOTH_RMSNORM_SAVE_OUTPUT"
#: What writes frozen embeddings and head to files.
WRITERS = ("offload_input_embeddings", "offload_output_embeddings")
#: What it logs or makes others warn of at each run, and which asks nothing of the user: banners, its own checkpointing
#: without use_reentrant, its own arguments to generate.
TALK = (
    r"Unsloth",
    r"==\(\(",
    r"torch\.utils\.checkpoint: the use_reentrant",
    r"Passing `generation_config` together with",
    r"Both `max_new_tokens`",
    r"Dynamo detected a call to a `functools\.lru_cache`",
)


class UnslothFailed(MachineError):
    """Unsloth failed after its import: this process is patched, and only a new one can load the model without it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"use_unsloth: Unsloth failed: {reason}; use use_unsloth: false")
        self.reason = reason


def import_unsloth(model: ModelSection, hardware: Hardware) -> ModuleType:
    """Import Unsloth first of all heavy packages, quietly, without statistics, its cache outside the working tree.

    Raises:
        UnslothFailed: it cannot be imported, or something it patches was imported before it.
        torch.AcceleratorError: the device does not answer any more.
    """
    if "unsloth" in sys.modules:
        return sys.modules["unsloth"]
    too_early = [name for name in IMPORTED_AFTER if name in sys.modules]
    if too_early:
        raise UnslothFailed(f"{', '.join(too_early)} was imported before it")
    configure_hub(model)
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ["UNSLOTH_AUTO_INSTALL"] = "0"
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(_cache_folder()))
    if find_model(model).is_local:
        os.environ["HF_HUB_OFFLINE"] = "1"
        if "huggingface_hub.constants" in sys.modules:
            sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE = True
    if hardware.kind == "cpu":
        os.environ["UNSLOTH_FORCE_CPU"] = "1"
    os.environ.setdefault(NORM_VARIABLE, "1")
    limit_loss(model)
    try:
        with quietly():
            module = importlib.import_module("unsloth")
    except library_failures() as error:
        if isinstance(error, getattr(sys.modules.get("torch"), "AcceleratorError", ())):
            raise
        raise UnslothFailed(f"it cannot be imported: {first_line(error)}") from error
    demote_to_debug(TALK)
    return module


def norms_keep_outputs(model: ModelSection, hardware: Hardware, model_type: str) -> bool:
    """Whether norms keep what they give instead of their input: frozen ones, in layers that Unsloth has written."""
    is_its_own = hardware.kind == "cuda" and is_fast_family(model_type)
    return is_its_own and model.train_mode != "full" and os.environ.get(NORM_VARIABLE) == "1"


def limit_loss(model: ModelSection) -> None:
    """Tell it before its import how many tokens may have scores at once; it counts in GiB of float32 scores.

    Left alone it takes 512 tokens for a vocabulary of 128,000, more for smaller ones and longer rows, within 2 GiB.
    """
    if model.loss_chunk_tokens is not None:
        config = read_source_config(find_model(model))
        vocab = (config.get("text_config") or config)["vocab_size"]
        os.environ[LOSS_VARIABLE] = str(model.loss_chunk_tokens * vocab * 4 / 2**30)


def knows_loss_limit() -> bool:
    """Whether this version has the loss that reads the limit."""
    try:
        from unsloth_zoo.fused_losses import fused_linear
    except ImportError:
        return False
    return hasattr(fused_linear, "_CHUNK_GB")


def why_all_scores() -> str | None:
    """Why its loss on a GPU makes scores of tokens that are not learned too; None where it makes none of them.

    Its usual loss looks for the learned tokens by itself, and puts these alone through the output head.
    """
    if not knows_loss_limit():
        return "this version has no loss of learned tokens alone"
    changed = [
        f"{name}={os.environ[name]}" for name, usual in USUAL_LOSS.items() if os.environ.get(name, usual) != usual
    ]
    return f"the environment has {', '.join(changed)}" if changed else None


def recomputation_flag() -> Callable[[], bool]:
    """What says whether its checkpointing computes a forward pass again whose output nobody reads."""
    try:
        from unsloth_zoo.gradient_checkpointing import in_gradient_checkpoint_recompute
    except ImportError:
        return lambda: False
    return in_gradient_checkpoint_recompute


def has_fused_dropout(hardware: Hardware) -> bool:
    """Whether its fused kernels for adapters know dropout."""
    if hardware.kind != "cuda":
        return False
    from unsloth.kernels import fast_lora

    return bool(getattr(fast_lora, "FUSED_LORA_DROPOUT", False))


def call_unsloth(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call into Unsloth quietly and turn its failures, other than those of the device, into UnslothFailed."""
    import torch

    try:
        with quietly():
            return function(*args, **kwargs)
    except (RunError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except library_failures() as error:
        raise UnslothFailed(first_line(error)) from error


@contextlib.contextmanager
def without_files_of_embeddings() -> Iterator[None]:
    """Keep Unsloth from writing frozen embeddings and head to files, as it does where `modules_to_save` trains them.

    Its files come into the working directory, or into the model's own folder where that has an absolute path
    (unsloth 2026.10.9, models/_utils.py, offload_to_disk). The matrices stay on the device, where a plan counts them.
    """
    module = sys.modules.get("unsloth.models.llama")
    theirs = {name: getattr(module, name) for name in WRITERS if hasattr(module, name)}
    try:
        for name in theirs:
            setattr(module, name, lambda *_args: None)
        yield
    finally:
        for name, function in theirs.items():
            setattr(module, name, function)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Send what is printed to the log at debug level; not stderr, which handlers made meanwhile would hold on to."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line.strip():
                logger.debug("unsloth: {}", line.rstrip())


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lampyris" / "unsloth_compiled"

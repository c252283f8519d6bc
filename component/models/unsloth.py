"""The Unsloth loader: its import, which patches the whole process, and models through its kernels."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from loguru import logger

from component.config.errors import MachineError, RunError
from component.config.schema import AdapterSection, ModelSection
from component.models.adapters import copy_moved_start, explain_unadapted_experts, lora_arguments
from component.models.checkpoint import check_stored_names
from component.models.decoder_layers import train_last_layers
from component.models.failures import first_line, library_failures
from component.models.loaded import LoadedModel
from component.models.model_files import ModelSource, configure_hub, find_model, read_source_config
from component.models.precision import Precision
from component.models.preparing import (
    check_vocabulary,
    describe_asked,
    describe_precision,
    device_map,
    set_training_flags,
)
from component.models.quantization import (
    check_quantization,
    describe_layers,
    eight_bit_layers,
    four_bit_layers,
    prepare_four_bit_layers,
)
from component.models.support import is_fast_family
from component.models.unsloth_attention import DISPATCH, prepare_packed_attention
from component.runtime.logging import demote_to_debug

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from component.runtime.hardware import Hardware

#: Unsloth replaces parts of these, so they must be imported after it.
IMPORTED_AFTER = ("transformers", "trl", "peft")
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
    try:
        with _quietly():
            module = importlib.import_module("unsloth")
    except library_failures() as error:
        raise UnslothFailed(f"it cannot be imported: {first_line(error)}") from error
    demote_to_debug(TALK)
    return module


def load_unsloth(
    model: ModelSection,
    adapter: AdapterSection,
    *,
    tokenizer: PreTrainedTokenizerBase,
    precision: Precision,
    hardware: Hardware,
    gradient_checkpointing_kwargs: Mapping[str, Any],
) -> LoadedModel:
    """Load a model ready to train; arguments and result as of `load_vanilla`.

    Raises:
        UserError: the model cannot be loaded as asked, by any loader.
        UnslothFailed: by Unsloth; another process can load it with the vanilla loader.
    """
    module = import_unsloth(model, hardware)
    source = find_model(model)
    own_quantization = check_quantization(read_source_config(source), model.train_mode)
    checkpointing = _checkpointing(model, hardware)
    base, theirs = _guarded(
        module.FastLanguageModel.from_pretrained,
        **_loading_arguments(model, source, precision, hardware, checkpointing),
    )
    prepare_four_bit_layers(base, compute_dtype=precision.compute_dtype)
    _check_loaded(model, base, tokenizer, theirs)
    notices = [
        *precision.notices,
        *_unplaced(source, base),
        *_ignored(model, adapter, gradient_checkpointing_kwargs, hardware),
    ]
    peft_config = None
    prepared = base
    if model.train_mode != "full":
        experts = explain_unadapted_experts(base)
        notices += [experts] if experts else []
        prepared = _attach(module, base, model, adapter, checkpointing)
        peft_config = prepared.peft_config["default"]
    # Below 512 tokens it checkpoints in the plain way, and tells so here.
    checkpointing = getattr(prepared, "_unsloth_gradient_checkpointing", checkpointing)
    with _quietly():
        module.FastLanguageModel.for_training(prepared, use_gradient_checkpointing=checkpointing)
    if model.train_mode == "full" and model.freeze_trainable_layers is not None:
        notices.append(train_last_layers(prepared, model.freeze_trainable_layers))
    set_training_flags(prepared)
    packed = None
    if model.packing:
        packed = prepare_packed_attention(
            sys.modules.get(DISPATCH),
            base.config,
            hardware,
            unsloth_version=module.__version__,
            compute_dtype=precision.compute_dtype,
            device=base.device,
        )
        notices += packed.notices(hardware)
    return LoadedModel(
        model=prepared,
        tokenizer=tokenizer,
        peft_config=peft_config,
        moved_start=copy_moved_start(prepared, adapter) if peft_config is not None else None,
        asked=describe_asked(model),
        got={
            "loader": "unsloth",
            "unsloth_version": module.__version__,
            **describe_precision(precision),
            "attn_implementation": "unsloth" if hardware.kind == "cuda" else base.config._attn_implementation,
            "attn_implementation_reason": "Unsloth chooses it",
            **(packed.describe() if packed else {}),
            "quantization": describe_layers(base, model, own_quantization),
            "gradient_checkpointing": checkpointing,
        },
        notices=tuple(notices),
    )


def _loading_arguments(
    model: ModelSection, source: ModelSource, precision: Precision, hardware: Hardware, checkpointing: bool | str
) -> dict[str, Any]:
    import torch

    is_full = model.train_mode == "full"
    arguments: dict[str, Any] = {
        "model_name": source.base,
        "revision": source.base_revision,
        "max_seq_length": model.max_seq_length,
        "dtype": getattr(torch, precision.load_dtype),
        "load_in_4bit": model.train_mode == "qlora" and model.quantization == "int4",
        "load_in_8bit": model.train_mode == "qlora" and model.quantization == "int8",
        "load_in_16bit": model.train_mode == "lora",
        "full_finetuning": is_full,
        "use_exact_model_name": True,
        "device_map": device_map(hardware),
        "trust_remote_code": model.trust_remote_code,
        "use_gradient_checkpointing": checkpointing,
        "random_state": model.seed,
        "offload_embedding": False,
        "fast_inference": False,
    }
    if is_full and hardware.kind == "cuda":
        # With float32 masters it wants the dtype of the computation, and a flag for the masters.
        arguments["dtype"] = getattr(torch, precision.compute_dtype)
        arguments["float32_mixed_precision"] = precision.load_dtype == "float32"
    return arguments


def _attach(
    module: ModuleType, base: PreTrainedModel, model: ModelSection, adapter: AdapterSection, checkpointing: bool | str
) -> Any:
    return _guarded(
        module.FastLanguageModel.get_peft_model,
        base,
        **lora_arguments(adapter, base),
        use_gradient_checkpointing=checkpointing,
        random_state=model.seed,
        max_seq_length=model.max_seq_length,
    )


def _check_loaded(
    model: ModelSection,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    theirs: PreTrainedTokenizerBase,
) -> None:
    """Hold Unsloth to what was asked: it falls back to 16 bit by itself, and may add tokens to tokenizer and model."""
    if model.train_mode == "qlora" and not (four_bit_layers(base) or eight_bit_layers(base)):
        raise UnslothFailed("it loaded no quantized layers")
    # For some families it returns a processor around the tokenizer.
    known = getattr(theirs, "tokenizer", theirs).get_vocab()
    if model.tokenizer_name_or_path is None and tokenizer.get_vocab().items() - known.items():
        raise UnslothFailed("its tokenizer has other ids than the one that the data was prepared with")
    declared = base.config.get_text_config().vocab_size
    if base.get_input_embeddings().num_embeddings != declared:
        raise UnslothFailed(f"it changed the vocabulary of {declared} tokens")
    check_vocabulary(base, tokenizer)


def _unplaced(source: ModelSource, base: PreTrainedModel) -> tuple[str, ...]:
    """Refuse missing weights, which Unsloth starts at random, and tell of those without a place."""
    # Unsloth keeps transformers' loading report to itself, and only these families' weights are named as in the files.
    return check_stored_names(source, base) if is_fast_family(base.config.model_type) else ()


def _checkpointing(model: ModelSection, hardware: Hardware) -> bool | str:
    # Its own kind offloads activations to main memory, which on a CPU they are in already.
    if not model.gradient_checkpointing:
        return False
    return "unsloth" if hardware.kind == "cuda" else True


def _ignored(
    model: ModelSection, adapter: AdapterSection, gradient_checkpointing_kwargs: Mapping[str, Any], hardware: Hardware
) -> list[str]:
    notices = []
    if model.train_mode != "full" and adapter.lora_dropout > 0 and not _has_fused_dropout(hardware):
        notices.append(f"lora_dropout: {adapter.lora_dropout} loses Unsloth's fused LoRA kernels; 0 keeps them")
    if model.train_mode != "full" and adapter.use_dora:
        notices.append("use_dora: loses Unsloth's fused LoRA kernels")
    if model.attn_implementation != "auto":
        notices.append(f"attn_implementation: {model.attn_implementation} is ignored, Unsloth chooses its own")
    if model.gradient_checkpointing and dict(gradient_checkpointing_kwargs) != {"use_reentrant": False}:
        notices.append("gradient_checkpointing_kwargs: ignored, Unsloth checkpoints in its own way")
    return notices


def _has_fused_dropout(hardware: Hardware) -> bool:
    if hardware.kind != "cuda":
        return False
    from unsloth.kernels import fast_lora

    return bool(getattr(fast_lora, "FUSED_LORA_DROPOUT", False))


def _guarded(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call into Unsloth quietly and turn its failures, other than lack of memory, into UnslothFailed."""
    import torch

    try:
        with _quietly():
            return function(*args, **kwargs)
    except (RunError, torch.OutOfMemoryError):
        raise
    except library_failures() as error:
        raise UnslothFailed(first_line(error)) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
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

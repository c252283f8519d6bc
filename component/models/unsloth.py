"""The Unsloth loader: models through its kernels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from component.config.schema import AdapterSection, ModelSection
from component.models.adapters import copy_moved_start, explain_unadapted_experts, lora_arguments, unfreeze_adapter
from component.models.block_compile import leave_uncompiled
from component.models.checkpoint import check_stored_names
from component.models.decoder_layers import check_skipped, find_layers, skip_checkpointing, train_last_layers
from component.models.host_loading import explain_detour, read_to_host
from component.models.host_weights import device_of, keep_on_host
from component.models.loaded import LoadedModel
from component.models.model_files import ModelSource, source_folder
from component.models.new_rows import add_rows, save_new_rows_alone
from component.models.precision import Precision
from component.models.preparing import (
    check_vocabulary,
    describe_asked,
    describe_precision,
    describe_savings,
    device_map,
    explain_offload,
    offloaded_keys,
    set_training_flags,
    settle_frozen_weights,
)
from component.models.quantization import (
    describe_layers,
    eight_bit_layers,
    four_bit_layers,
    prepare_four_bit_layers,
)
from component.models.quantized_cache import QuantizedCache
from component.models.request import LoadRequest
from component.models.support import is_fast_family
from component.models.unsloth_attention import DISPATCH, prepare_packed_attention
from component.models.unsloth_import import (
    UnslothFailed,
    call_unsloth,
    has_fused_dropout,
    import_unsloth,
    norms_keep_outputs,
    quietly,
    recomputation_flag,
    without_files_of_embeddings,
)
from component.models.unsloth_lora import FusedAdapters, Seam, fuse_adapters, wants_fused_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from component.models.packed_attention import PackedAttention
    from component.runtime.hardware import Hardware


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
    request = LoadRequest(model, adapter, tokenizer, precision, hardware, gradient_checkpointing_kwargs)
    module = import_unsloth(model, hardware)
    own_quantization = request.own_quantization
    base, told, cached = _load_base(module, request)
    prepared, notices = _prepare(module, base, request)
    fused = _fuse(module, prepared, request)
    if model.tiled_mlp:
        _tile(base)
    keep_on_host(base, offloaded_keys(model, hardware))
    packed = _packed_attention(module, base, request) if model.packing else None
    return LoadedModel(
        model=prepared,
        tokenizer=tokenizer,
        peft_config=prepared.peft_config["default"] if model.train_mode != "full" else None,
        moved_start=copy_moved_start(prepared, adapter) if model.train_mode != "full" else None,
        asked=describe_asked(model),
        got={
            "loader": "unsloth",
            "unsloth_version": module.__version__,
            **describe_precision(precision),
            "attn_implementation": "unsloth" if hardware.kind == "cuda" else base.config._attn_implementation,
            "attn_implementation_reason": "Unsloth chooses it",
            **(packed.describe() if packed else {}),
            "quantization": describe_layers(prepared, model, own_quantization),
            **({} if cached is None else {"quantized_cache": cached}),
            **describe_savings(model, hardware),
            "gradient_checkpointing": _checkpointing_of(prepared, request),
            "checkpoint_skip_layers": _skipped_layers(model),
            "rmsnorm_save_output": norms_keep_outputs(model, hardware, base.config.model_type),
            **({} if fused is None else {"fused_lora": fused.describe()}),
        },
        notices=(
            *precision.notices,
            *told,
            *notices,
            *(fused.notices() if fused else ()),
            *(packed.notices(hardware) if packed else ()),
        ),
    )


def _load_base(module: ModuleType, request: LoadRequest) -> tuple[PreTrainedModel, tuple[str, ...], str | None]:
    """The base with rows for new tokens, notices, and what the cache of quantized weights had to do with it."""
    arguments = _loading_arguments(request)
    load = partial(call_unsloth, module.FastLanguageModel.from_pretrained)
    # It makes its own settings of the quantization, which change with its version alone.
    cache = QuantizedCache(request, loader="unsloth", settings={})

    def read(folder: Path, told: tuple[str, ...]) -> Any:
        """Load kept weights beside the original's tokenizer."""
        stored = {"model_name": str(folder), "revision": None, "tokenizer_name": str(source_folder(request.source))}
        return load(**arguments | stored)

    keys = offloaded_keys(request.model, request.hardware)
    with read_to_host(keys if _reads_to_host(request) else ()) as done:
        base, theirs = cache.load(
            make=lambda: load(**arguments),
            read=read,
            base_of=lambda loaded: (loaded[0], ()),
        )
    prepare_four_bit_layers(base, compute_dtype=request.precision.compute_dtype)
    _check_loaded(request, base, theirs)
    notices = [*_unplaced(request.source, base), *_ignored(request), *cache.notices, *explain_detour(keys, done)]
    notices.append(add_rows(base, request.new_tokens))
    check_vocabulary(base, request.tokenizer)
    return base, tuple(notice for notice in notices if notice is not None), cache.state


def _reads_to_host(request: LoadRequest) -> bool:
    """Whether weights may be in main memory from the start: its other loader hangs hooks into such a model."""
    return is_fast_family(request.files_config["model_type"]) and not (
        request.model.train_mode == "qlora" and request.model.quantization == "int8"
    )


def _prepare(module: ModuleType, base: PreTrainedModel, request: LoadRequest) -> tuple[Any, list[str]]:
    """Attach an adapter or make the model trainable, and switch Unsloth to training; returns notices too."""
    model, notices = request.model, []
    prepared = base
    check_skipped(model.checkpoint_skip_layers, base.config.get_text_config().num_hidden_layers)
    if model.train_mode != "full":
        experts = explain_unadapted_experts(base)
        notices += [experts] if experts else []
        with without_files_of_embeddings():
            prepared = call_unsloth(
                module.FastLanguageModel.get_peft_model,
                base,
                **lora_arguments(request.adapter, base, new_token_ids=tuple(request.new_tokens)),
                use_gradient_checkpointing=_checkpointing(model, request.hardware),
                random_state=model.seed,
                max_seq_length=model.max_seq_length,
                **_skipping(request),
            )
        unfreeze_adapter(prepared, base.dtype)
        notices += settle_frozen_weights(prepared, base, model, request.precision)
        if request.new_tokens:
            save_new_rows_alone(prepared)
    elif _skipping(request):
        # In full training it does nothing else.
        call_unsloth(module.FastLanguageModel.get_peft_model, base, **_skipping(request))
    with quietly():
        module.FastLanguageModel.for_training(prepared, use_gradient_checkpointing=_checkpointing_of(prepared, request))
    if _skipped_layers(model) and not _skipping(request):
        skip_checkpointing(base, _skipped_layers(model))
    if model.train_mode == "full" and model.freeze_trainable_layers is not None:
        notices.append(train_last_layers(prepared, model.freeze_trainable_layers))
    set_training_flags(prepared)
    return prepared, notices


def _fuse(module: ModuleType, prepared: Any, request: LoadRequest) -> FusedAdapters | None:
    """Fuse adapters; None where that is not wanted."""
    if not wants_fused_adapters(request.model, request.hardware):
        return None
    return fuse_adapters(prepared, Seam(module.kernels, module.__version__, recomputation_flag()))


def _tile(base: PreTrainedModel) -> None:
    # Unsloth's own tiling fails in the backward pass of more than one tile (torch 2.11: a view that is overwritten),
    # and its compiled layers do not trace a checkpoint within a checkpoint.
    from component.models.tiled_mlp import tile_mlps

    tile_mlps(base)
    leave_uncompiled(*find_layers(base)[1])


def _packed_attention(module: ModuleType, base: PreTrainedModel, request: LoadRequest) -> PackedAttention:
    return prepare_packed_attention(
        sys.modules.get(DISPATCH),
        base.config,
        request.hardware,
        unsloth_version=module.__version__,
        compute_dtype=request.precision.compute_dtype,
        device=device_of(base),
    )


def _loading_arguments(request: LoadRequest) -> dict[str, Any]:
    import torch

    model, precision, hardware = request.model, request.precision, request.hardware
    is_full = model.train_mode == "full"
    arguments: dict[str, Any] = {
        "model_name": request.source.base,
        "revision": request.source.base_revision,
        "max_seq_length": model.max_seq_length,
        "dtype": getattr(torch, precision.load_dtype),
        "load_in_4bit": model.train_mode == "qlora" and model.quantization == "int4",
        "load_in_8bit": model.train_mode == "qlora" and model.quantization == "int8",
        "load_in_16bit": model.train_mode == "lora",
        "full_finetuning": is_full,
        "use_exact_model_name": True,
        "device_map": device_map(hardware),
        "trust_remote_code": model.trust_remote_code,
        "use_gradient_checkpointing": _checkpointing(model, hardware),
        "random_state": model.seed,
        "fast_inference": False,
        # Left to itself, it moves the embedding to main memory without a word where memory is short.
        "offload_embedding": False,
    }
    if is_full and hardware.kind == "cuda":
        # With float32 masters it wants the dtype of the computation, and a flag for the masters.
        arguments["dtype"] = getattr(torch, precision.compute_dtype)
        arguments["float32_mixed_precision"] = precision.load_dtype == "float32"
    return arguments


def _check_loaded(request: LoadRequest, base: PreTrainedModel, theirs: PreTrainedTokenizerBase) -> None:
    """Hold Unsloth to what was asked: it falls back to 16 bit by itself, and may add tokens to tokenizer and model."""
    model = request.model
    if model.train_mode == "qlora" and not (four_bit_layers(base) or eight_bit_layers(base)):
        raise UnslothFailed("it loaded no quantized layers")
    # For some families it returns a processor around the tokenizer.
    known = getattr(theirs, "tokenizer", theirs).get_vocab()
    ours = {text: id for text, id in request.tokenizer.get_vocab().items() if id not in request.new_tokens}
    if model.tokenizer_name_or_path is None and ours.items() - known.items():
        raise UnslothFailed("its tokenizer has other ids than the one that the data was prepared with")
    declared = base.config.get_text_config().vocab_size
    if base.get_input_embeddings().num_embeddings != declared:
        raise UnslothFailed(f"it changed the vocabulary of {declared} tokens")


def _unplaced(source: ModelSource, base: PreTrainedModel) -> tuple[str, ...]:
    """Refuse missing weights, which Unsloth starts at random, and tell of those without a place."""
    # Unsloth keeps transformers' loading report to itself, and only these families' weights are named as in the files.
    return check_stored_names(source, base) if is_fast_family(base.config.model_type) else ()


def _checkpointing(model: ModelSection, hardware: Hardware) -> bool | str:
    # Its own kind offloads activations to main memory, which on a CPU they are in already.
    if not model.gradient_checkpointing:
        return False
    return "unsloth" if hardware.kind == "cuda" else True


def _checkpointing_of(prepared: Any, request: LoadRequest) -> bool | str:
    # Below 512 tokens it checkpoints in the plain way, and tells so here.
    asked = _checkpointing(request.model, request.hardware)
    return getattr(prepared, "_unsloth_gradient_checkpointing", asked)


def _skipped_layers(model: ModelSection) -> int:
    return model.checkpoint_skip_layers if model.gradient_checkpointing else 0


def _skipping(request: LoadRequest) -> dict[str, int]:
    """Its argument for layers that keep their activations; on a CPU, where transformers does all, it has none."""
    number = _skipped_layers(request.model)
    return {"checkpoint_skip_layers": number} if number and request.hardware.kind == "cuda" else {}


def _ignored(request: LoadRequest) -> list[str]:
    model, adapter, notices = request.model, request.adapter, explain_offload(request.model, request.hardware)
    if model.train_mode != "full" and adapter.lora_dropout > 0 and not has_fused_dropout(request.hardware):
        notices.append(f"lora_dropout: {adapter.lora_dropout} loses Unsloth's fused LoRA kernels; 0 keeps them")
    if model.train_mode != "full" and adapter.use_dora:
        notices.append("use_dora: loses Unsloth's fused LoRA kernels")
    if model.attn_implementation != "auto":
        notices.append(f"attn_implementation: {model.attn_implementation} is ignored, Unsloth chooses its own")
    if model.gradient_checkpointing and dict(request.gradient_checkpointing_kwargs) != {"use_reentrant": False}:
        notices.append("gradient_checkpointing_kwargs: ignored, Unsloth checkpoints in its own way")
    return notices

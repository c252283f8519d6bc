"""The vanilla loader: transformers, PEFT and bitsandbytes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.config.schema import AdapterSection, ModelSection
from component.models.adapters import (
    attach_adapter,
    build_lora_config,
    copy_moved_start,
    explain_unadapted_experts,
)
from component.models.attention import AttentionChoice, choose_attention, settle_attention
from component.models.checkpoint import load_config, load_quantized, load_weights
from component.models.decoder_layers import skip_checkpointing, train_last_layers
from component.models.host_loading import explain_detour, read_to_host
from component.models.host_weights import check_frozen, keep_on_host
from component.models.language_model import freeze_towers
from component.models.loaded import LoadedModel
from component.models.new_rows import add_rows, save_new_rows_alone
from component.models.precision import Precision
from component.models.preparing import (
    check_vocabulary,
    describe_asked,
    describe_precision,
    describe_savings,
    device_map,
    explain_offload,
    max_positions,
    offloaded_keys,
    set_training_flags,
    settle_frozen_weights,
)
from component.models.quantization import (
    build_quantization_config,
    describe_layers,
    prepare_four_bit_layers,
)
from component.models.quantized_cache import QuantizedCache
from component.models.request import LoadRequest
from component.models.rope import scale_rope
from component.models.saved_adapters import continue_adapter, load_adapter
from component.models.score_head import SCORED_TASKS, load_scored
from component.models.tiled_mlp import tile_mlps

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from component.runtime.hardware import Hardware


def load_vanilla(
    model: ModelSection,
    adapter: AdapterSection,
    *,
    tokenizer: PreTrainedTokenizerBase,
    precision: Precision,
    hardware: Hardware,
    gradient_checkpointing_kwargs: Mapping[str, Any],
) -> LoadedModel:
    """Load a model ready to train.

    Gradient checkpointing is switched on here, as both loaders do: the trainer's own `gradient_checkpointing` must be
    False, or it would replace Unsloth's.

    Args:
        model, adapter: the config's sections.
        tokenizer: the one that the data was prepared with.
        precision: from `resolve_precision`.
        hardware: the device to load onto.
        gradient_checkpointing_kwargs: arguments of torch.utils.checkpoint.

    Raises:
        UserError: the model cannot be loaded as asked.
    """
    request = LoadRequest(model, adapter, tokenizer, precision, hardware, gradient_checkpointing_kwargs)
    base = _load_base(request)
    _prepare_base(base.model, request)
    prepared, notices = _attach(base.model, request) if model.train_mode != "full" else _free(base.model, request)
    notices += settle_frozen_weights(prepared, base.model, model, precision)
    check_vocabulary(base.model, tokenizer)
    if keys := offloaded_keys(model, hardware):
        check_frozen(prepared, keys)
    peft_config = prepared.peft_config["default"] if model.train_mode != "full" else None
    continued = request.source.adapter if peft_config is not None else None
    return LoadedModel(
        model=prepared,
        tokenizer=tokenizer,
        peft_config=peft_config,
        continued_adapter=continued,
        moved_start=copy_moved_start(prepared, adapter) if peft_config is not None and continued is None else None,
        asked=describe_asked(model),
        got={
            "loader": "vanilla",
            **describe_precision(precision),
            **base.attention.describe(),
            **(base.attention.packed().describe() if model.packing else {}),
            "quantization": describe_layers(prepared, model, request.own_quantization),
            **({} if base.quantized_cache is None else {"quantized_cache": base.quantized_cache}),
            "gradient_checkpointing": bool(model.gradient_checkpointing),
            "checkpoint_skip_layers": model.checkpoint_skip_layers if model.gradient_checkpointing else 0,
            **describe_savings(model, hardware),
            "offloads_checkpoints": _offloads(request),
        },
        notices=(*_notices(base, request), *notices),
    )


@dataclass(frozen=True)
class _Base:
    """A base model as it was read, how it attends, notices of its files, and what the cache had to do with them."""

    model: PreTrainedModel
    attention: AttentionChoice
    notices: tuple[str, ...]
    quantized_cache: str | None


def _load_base(request: LoadRequest) -> _Base:
    import torch

    model, source, precision = request.model, request.source, request.precision
    quantization = build_quantization_config(model, precision, request.files_config)
    config = load_config(source, trust_remote_code=model.trust_remote_code)
    scale_rope(config, model.rope_scaling)
    rows = {"compute_dtype": precision.compute_dtype, "packing": bool(model.packing)}
    attention = choose_attention(model.attn_implementation, config, request.hardware, **rows)
    attention = settle_attention(attention, config, request.hardware, **rows)
    load: Any = load_weights
    if model.task_type in SCORED_TASKS:
        load = partial(load_scored, seed=model.seed, pad_token_id=request.tokenizer.pad_token_id)
    arguments = {
        "trust_remote_code": model.trust_remote_code,
        "dtype": getattr(torch, precision.load_dtype),
        "attn_implementation": attention.got,
        "device_map": device_map(request.hardware),
    }
    # An explicit None would discard a checkpoint's own quantization.
    settings = {} if quantization is None else {"quantization_config": quantization}
    cache = QuantizedCache(request, loader="vanilla", settings=quantization.to_dict() if quantization else {})
    keys = offloaded_keys(model, request.hardware)
    with read_to_host(keys) as done:
        base, notices = cache.load(
            make=lambda: load(source, config, **arguments, **settings),
            read=lambda folder, told: (load_quantized(folder, config, **arguments), told),
            base_of=lambda loaded: loaded,
        )
    return _Base(base, attention, (*notices, *cache.notices, *explain_detour(keys, done)), cache.state)


def _prepare_base(base: PreTrainedModel, request: LoadRequest) -> None:
    prepare_four_bit_layers(base, compute_dtype=request.precision.compute_dtype)
    set_training_flags(base)
    keep_on_host(base, offloaded_keys(request.model, request.hardware))
    if request.model.tiled_mlp:
        tile_mlps(base)
    if request.model.gradient_checkpointing:
        arguments = dict(request.gradient_checkpointing_kwargs)
        arguments.pop("offload", None)  # no argument of torch's
        if _offloads(request):
            # TRL switches checkpointing off for a reference, and on again without this argument.
            base.gradient_checkpointing_enable = partial(base.gradient_checkpointing_enable, offload=True)
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments or None)
        if request.model.checkpoint_skip_layers:
            skip_checkpointing(base, request.model.checkpoint_skip_layers)
    base.train()


def _offloads(request: LoadRequest) -> bool:
    """Whether what checkpointing keeps is in main memory."""
    is_asked = request.model.gradient_checkpointing and request.gradient_checkpointing_kwargs.get("offload")
    return bool(is_asked) and request.hardware.kind == "cuda"


def _attach(base: PreTrainedModel, request: LoadRequest) -> tuple[PeftModel, list[str]]:
    """Attach a new adapter, or the one that training goes on from; returns notices too."""
    experts = explain_unadapted_experts(base)
    notices = [experts] if experts is not None else []
    source, new_tokens = request.source, request.new_tokens
    if source.adapter is not None:
        if new_tokens:
            raise UserError(
                f"new_tokens: training goes on from the adapter {source.adapter}, which has no rows for them; "
                "name them in the run that makes the adapter, or use train_mode: full, which merges it"
            )
        prepared, told = continue_adapter(base, source)
        return prepared, [*notices, *told]
    added = add_rows(base, new_tokens)
    lora = build_lora_config(request.adapter, base, new_token_ids=tuple(new_tokens))
    prepared = attach_adapter(base, lora, seed=request.model.seed)
    if added is not None:
        save_new_rows_alone(prepared)
        notices.append(added)
    return prepared, notices


def _free(base: PreTrainedModel, request: LoadRequest) -> tuple[PreTrainedModel, list[str]]:
    """Make a whole model trainable, with the adapter that training goes on from in it; returns notices too."""
    source, number = request.source, request.model.freeze_trainable_layers
    notices: list[str | None] = []
    if source.adapter is not None:
        started, told = load_adapter(base, source, is_trainable=False)
        base = started.merge_and_unload()
        notices += [f"the adapter {source.adapter} was merged into its base, and all of it is trained", *told]
    notices.append(add_rows(base, request.new_tokens))
    base.requires_grad_(True)
    notices.append(freeze_towers(base))
    if number is not None:
        notices.append(train_last_layers(base, number))
    return base, [notice for notice in notices if notice is not None]


def _notices(base: _Base, request: LoadRequest) -> list[str]:
    model = request.model
    packed = base.attention.packed().notices(request.hardware) if model.packing else ()
    notices = [*request.precision.notices, *base.notices, *packed]
    if model.gradient_checkpointing == "unsloth":
        notices.append("gradient_checkpointing: unsloth is Unsloth's own; here as with true")
    notices += explain_offload(model, request.hardware)
    if request.gradient_checkpointing_kwargs.get("offload") and request.hardware.kind != "cuda":
        notices.append("gradient_checkpointing_kwargs: offload is ignored, all is in main memory here")
    limit = max_positions(base.model.config.to_dict())
    if limit is not None and model.max_seq_length > limit:
        notices.append(
            f"max_seq_length: {model.max_seq_length} is beyond the {limit} positions that the model was made "
            "for; rope_scaling stretches them"
        )
    return notices

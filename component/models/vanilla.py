"""The vanilla loader: transformers, PEFT and bitsandbytes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from component.config.schema import AdapterSection, ModelSection
from component.models.adapters import (
    attach_adapter,
    build_lora_config,
    continue_adapter,
    copy_moved_start,
    explain_unadapted_experts,
    load_adapter,
)
from component.models.attention import AttentionChoice, choose_attention, settle_attention
from component.models.checkpoint import load_config, load_weights
from component.models.decoder_layers import train_last_layers
from component.models.language_model import freeze_towers
from component.models.loaded import LoadedModel
from component.models.model_files import ModelSource, find_model, read_source_config
from component.models.precision import Precision
from component.models.preparing import (
    check_vocabulary,
    describe_asked,
    describe_precision,
    device_map,
    max_positions,
    set_training_flags,
)
from component.models.quantization import (
    build_quantization_config,
    check_quantization,
    describe_layers,
    prepare_four_bit_layers,
)
from component.models.rope import scale_rope
from component.models.score_head import SCORED_TASKS, check_scored_adapter, load_scored

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

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
    source = find_model(model)
    files_config = read_source_config(source)
    quantization = build_quantization_config(model, precision, files_config)
    config = load_config(source, trust_remote_code=model.trust_remote_code)
    scale_rope(config, model.rope_scaling)
    rows = {"compute_dtype": precision.compute_dtype, "packing": bool(model.packing)}
    attention = choose_attention(model.attn_implementation, config, hardware, **rows)
    attention = settle_attention(attention, config, hardware, **rows)
    base, unplaced = _read_weights(
        model, source, config, quantization, attention, precision, hardware, pad_token_id=tokenizer.pad_token_id
    )
    prepare_four_bit_layers(base, compute_dtype=precision.compute_dtype)
    check_vocabulary(base, tokenizer)
    set_training_flags(base)
    if model.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(gradient_checkpointing_kwargs))
    notices = [*precision.notices, *unplaced, *(attention.packed().notices(hardware) if model.packing else [])]
    if model.gradient_checkpointing == "unsloth":
        notices.append("gradient_checkpointing: unsloth is Unsloth's own; here as with true")
    limit = max_positions(config.to_dict())
    if limit is not None and model.max_seq_length > limit:
        notices.append(
            f"max_seq_length: {model.max_seq_length} is beyond the {limit} positions that the model was made for"
        )
    prepared, peft_config = _prepare(base, model, adapter, source, notices)
    return LoadedModel(
        model=prepared,
        tokenizer=tokenizer,
        peft_config=peft_config,
        continued_adapter=source.adapter if peft_config is not None else None,
        moved_start=copy_moved_start(prepared, adapter) if peft_config is not None and not source.adapter else None,
        asked=describe_asked(model),
        got={
            "loader": "vanilla",
            **describe_precision(precision),
            **attention.describe(),
            **(attention.packed().describe() if model.packing else {}),
            "quantization": describe_layers(prepared, model, check_quantization(files_config, model.train_mode)),
            "gradient_checkpointing": bool(model.gradient_checkpointing),
        },
        notices=tuple(notices),
    )


def _prepare(
    base: PreTrainedModel, model: ModelSection, adapter: AdapterSection, source: ModelSource, notices: list[str]
) -> tuple[Any, Any]:
    """Attach or continue the adapter, or make the whole model trainable; returns the model and its PeftConfig."""
    base.train()
    if model.train_mode == "full":
        if source.adapter is not None:
            started = load_adapter(base, source.adapter, revision=source.adapter_revision, is_trainable=False)
            base = started.merge_and_unload()
            notices.append(f"the adapter {source.adapter} was merged into its base, and all of it is trained")
        base.requires_grad_(True)
        resting = freeze_towers(base)
        notices += [resting] if resting else []
        if model.freeze_trainable_layers is not None:
            notices.append(train_last_layers(base, model.freeze_trainable_layers))
        return base, None
    experts = explain_unadapted_experts(base)
    if experts is not None:
        notices.append(experts)
    if source.adapter is None:
        prepared = attach_adapter(base, build_lora_config(adapter, base), seed=model.seed)
        return prepared, prepared.peft_config["default"]
    prepared = continue_adapter(base, source.adapter, revision=source.adapter_revision)
    lora = prepared.peft_config["default"]
    notices.append(
        f"training goes on from the adapter {source.adapter}: its rank {lora.r}, alpha {lora.lora_alpha}, "
        f"dropout {lora.lora_dropout} and targets count, not the config's"
    )
    return prepared, lora


def _read_weights(
    model: ModelSection,
    source: ModelSource,
    config: PretrainedConfig,
    quantization: BitsAndBytesConfig | None,
    attention: AttentionChoice,
    precision: Precision,
    hardware: Hardware,
    *,
    pad_token_id: int,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    import torch

    # An explicit None would discard a checkpoint's own quantization.
    extra = {} if quantization is None else {"quantization_config": quantization}
    load: Any = load_weights
    if model.task_type in SCORED_TASKS:
        if source.adapter is not None:
            check_scored_adapter(source)
        load = partial(load_scored, seed=model.seed, pad_token_id=pad_token_id)
    return load(
        source,
        config,
        trust_remote_code=model.trust_remote_code,
        dtype=getattr(torch, precision.load_dtype),
        attn_implementation=attention.got,
        device_map=device_map(hardware),
        **extra,
    )

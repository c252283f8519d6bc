"""From the sections of a config to a workload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from component.config.adapter_rules import layer_numbers
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.load import Config
from component.config.usual import USUAL_LOSS_CHUNK
from component.planning.embeddings import SAVED, new_row_parameters, new_rows, saved_parameters, scores_in_parts
from component.planning.shape import UNSLOTH_FAMILIES, ModelShape
from component.planning.workload import OFFLOAD_TOKENS, Adapter, Workload

ALL_LINEAR = "all-linear"
#: A batch of unpacked rows grouped by length is about so much longer than its rows are in the mean.
GROUPED_PADDING = 1.05
#: Of a row, from which on a sample in it is planned with as one that fills it.
NEARLY_FULL = 0.9
#: Projections whose adapters the Unsloth loader fuses where all of a group have one.
FUSED_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj"))
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Setting:
    """What a config leaves to the machine and the loaders.

    Attributes:
        loader: that the run gets.
        load_dtype, compute_dtype: by torch's names.
        supports_varlen: whether packed rows of the vanilla loader run on a variable-length kernel.
        has_liger: whether Liger's kernels are used.
        chunks_loss: whether the vanilla trainer computes the loss of next tokens in parts.
        attention: of the vanilla loader under `auto`, where rows do not run on that kernel.
        grows_segments: whether torch's segments grow, so that free blocks between others are not lost.
        masks_padding: whether rows of unequal length, which are not packed, come with a mask; none do through Unsloth.
    """

    loader: str
    load_dtype: str
    compute_dtype: str
    supports_varlen: bool
    has_liger: bool = False
    chunks_loss: bool = True
    attention: str = "sdpa"
    masks_padding: bool = True
    grows_segments: bool = True


@dataclass(frozen=True)
class DataSize:
    """Prepared data, where it is known.

    Attributes:
        num_rows: of an epoch, as batch sizes count them: samples, packs, completions.
        mean_tokens, longest: of the samples; of prompts where answers are sampled.
        longest_pack: tokens of the fullest pack; 0 where it is not known.
        learned_share: of the samples' tokens; 1 where it is not known.
    """

    num_rows: int
    mean_tokens: float
    longest: int
    longest_pack: int = 0
    learned_share: float = 1.0


def read_workload(config: Config, shape: ModelShape, setting: Setting, data: DataSize | None = None) -> Workload:
    """Describe the largest micro-batch of a run.

    Args:
        data: where it is known, rows are as long as its longest sample instead of `max_seq_length`.
    """
    model, training = config.model, config.training
    is_packed = bool(training.packing)
    row_tokens = _longest_row(config, data)
    loader: Any = "unsloth" if setting.loader == "unsloth" else "vanilla"
    return Workload(
        shape=shape,
        task=model.task_type,
        loader=loader,
        quantization=_quantization(config),
        double_quantization=model.bnb_4bit_use_double_quant,
        adapter=None if model.train_mode == "full" else _adapter(config, shape),
        trained_layers=model.freeze_trainable_layers,
        load_bytes=NUMBER_BYTES[setting.load_dtype],
        compute_bytes=NUMBER_BYTES[setting.compute_dtype],
        checkpointing=_checkpointing(config, loader),
        attention=_attention(model.attn_implementation, loader, is_packed, setting),
        is_packed=is_packed,
        is_padded=not is_packed and setting.masks_padding and _has_padding(config, data),
        has_liger=setting.has_liger,
        optimizer=training.optim,
        rows=training.per_device_train_batch_size,
        row_tokens=row_tokens,
        gradients_wait=(training.gradient_accumulation_steps or 1) > 1,
        reference=_reference(config),
        eval_rows=_eval_rows(config),
        skipped_layers=_skipped_layers(config),
        is_dequantized=model.dequantize_base is True and _quantization(config) in ("nf4", "fp4"),
        has_fused_adapters=loader == "unsloth" and _has_fused_adapters(config, shape),
        keeps_norm_outputs=_keeps_norm_outputs(config, shape, loader),
        has_full_rows=is_packed and training.per_device_train_batch_size == 1 and _fills_a_row(data, row_tokens),
        offloads_embedding=model.offload_embedding is True,
        offloads_head=model.offload_head is True,
        moves_offloaded=_moves_offloaded(config, shape, loader),
        mlp_tile_tokens=shape.hidden if model.tiled_mlp else None,
        loss_chunk_tokens=_loss_chunk(config, setting, loader),
        scores_in_parts=scores_in_parts(config, shape, loader),
        grows_segments=setting.grows_segments,
    )


def unsloth_fields(workload: Workload, config: Config) -> dict[str, Any]:
    """Fields of a workload that are the loader's, as `read_workload` has them for Unsloth.

    Args:
        workload: of this config, through the vanilla loader; keys of the config may still be at `auto`.
    """
    loader, shape = "unsloth", workload.shape
    return {
        "loader": loader,
        "checkpointing": "none" if workload.checkpointing == "none" else recomputation(config, loader),
        "attention": "auto",
        "has_liger": False,
        "has_fused_adapters": _has_fused_adapters(config, shape),
        "keeps_norm_outputs": _keeps_norm_outputs(config, shape, loader),
        "moves_offloaded": _moves_offloaded(config, shape, loader),
        "loss_chunk_tokens": config.training.loss_chunk_tokens,
        "scores_in_parts": scores_in_parts(config, shape, loader),
    }


def mean_workload(workload: Workload, data: DataSize | None) -> Workload:
    """The mean micro-batch, whose time is predicted: the largest one where nothing is known of the data."""
    if data is None:
        return workload
    if workload.scores_learned_alone:
        workload = replace(workload, learned_share=data.learned_share)
    if workload.is_packed:
        return replace(workload, sample_tokens=data.mean_tokens)
    if workload.task not in LANGUAGE_MODEL_TASKS:
        return workload
    return replace(workload, row_tokens=round(min(data.mean_tokens * GROUPED_PADDING, workload.row_tokens)) or 1)


def _longest_row(config: Config, data: DataSize | None) -> int:
    limit = config.training.max_seq_length
    if data is None:
        return limit
    if config.training.packing:
        return min(limit, data.longest_pack or limit)
    sampled = config.grpo.max_completion_length if config.model.task_type == "grpo" else 0
    return min(limit, data.longest + sampled)


def _fills_a_row(data: DataSize | None, row_tokens: int) -> bool:
    """Whether a sample is as long as a row, or may be."""
    return data is None or data.longest >= NEARLY_FULL * row_tokens


def _keeps_norm_outputs(config: Config, shape: ModelShape, loader: str) -> bool:
    return loader == "unsloth" and config.model.train_mode != "full" and shape.model_type in UNSLOTH_FAMILIES


def _moves_offloaded(config: Config, shape: ModelShape, loader: str) -> bool:
    """Whether what is kept in main memory is not read straight there, as the vanilla loader always does."""
    is_read_to_host = shape.model_type in UNSLOTH_FAMILIES and _quantization(config) != "int8"
    return loader == "unsloth" and not is_read_to_host


def _loss_chunk(config: Config, setting: Setting, loader: str) -> int | None:
    """Tokens whose scores exist at once; None where another loss decides that."""
    asked = config.training.loss_chunk_tokens
    if loader == "unsloth" or config.model.task_type not in LANGUAGE_MODEL_TASKS:
        return asked
    return asked or USUAL_LOSS_CHUNK if setting.chunks_loss else None


def _has_padding(config: Config, data: DataSize | None) -> bool:
    return config.training.per_device_train_batch_size > 1 and not _are_equally_long(data)


def _are_equally_long(data: DataSize | None) -> bool:
    """Whether no row will be padded; transformers drops a mask that hides nothing."""
    return data is not None and data.mean_tokens == data.longest


def _quantization(config: Config) -> Any:
    model = config.model
    if model.fp8_base:
        return "fp8"
    if model.train_mode != "qlora":
        return None
    return "int8" if model.quantization == "int8" else model.bnb_4bit_quant_type


def _adapter(config: Config, shape: ModelShape) -> Adapter:
    section = config.adapter
    names = frozenset(linear.name for linear in shape.linears)
    targets = frozenset(name.rpartition(".")[2] for name in section.lora_target_modules)
    layers = [number for number in layer_numbers(section.layers_to_transform) if number < shape.num_layers]
    return Adapter(
        rank=section.lora_rank,
        targets=names if ALL_LINEAR in targets else names & targets,
        num_layers=len(layers) or shape.num_layers,
        trained_beside=saved_parameters(section.modules_to_save, shape) + new_row_parameters(config, shape),
        new_rows=new_rows(config, shape),
    )


def uncounted_modules(config: Config, shape: ModelShape) -> Iterator[tuple[str, str]]:
    """Keys and names of modules that they train, of which a workload knows nothing: others than usual, or misspelt."""
    if config.model.train_mode == "full":
        return
    linears = {linear.name for linear in shape.linears}
    for key, known in (("lora_target_modules", {*linears, ALL_LINEAR}), ("modules_to_save", SAVED)):
        for name in getattr(config.adapter, key):
            if name.rpartition(".")[2] not in known:
                yield key, name


def _has_fused_adapters(config: Config, shape: ModelShape) -> bool:
    """Whether the Unsloth loader fuses adapters: plain ones, on a whole group of a family that it has layers for."""
    model, adapter = config.model, config.adapter
    if model.train_mode == "full" or not model.fused_lora or _quantization(config) == "int8":
        return False
    is_plain = not (adapter.lora_dropout or adapter.use_dora or adapter.lora_bias)
    targets = _adapter(config, shape).targets
    return (
        is_plain and shape.model_type in UNSLOTH_FAMILIES and any(targets.issuperset(group) for group in FUSED_GROUPS)
    )


def _checkpointing(config: Config, loader: str) -> Any:
    return recomputation(config, loader) if config.model.gradient_checkpointing else "none"


def recomputation(config: Config, loader: str) -> Any:
    """As the loaders do it where they do, whatever the length of the data's rows."""
    training = config.training
    if loader == "unsloth":
        return "offload" if training.max_seq_length >= OFFLOAD_TOKENS else "recompute"
    return "offload" if training.gradient_checkpointing_kwargs.get("offload") else "recompute"


def _skipped_layers(config: Config) -> int:
    """Layers that keep their activations; only the tasks that read the key have any."""
    return config.model.checkpoint_skip_layers if config.model.task_type in LANGUAGE_MODEL_TASKS else 0


def _attention(asked: str, loader: str, is_packed: bool, setting: Setting) -> str:
    if loader == "unsloth":
        return "auto"  # it chooses its own
    if asked != "auto":
        return asked
    return "varlen" if is_packed and setting.supports_varlen else setting.attention


def _reference(config: Config) -> Any:
    task = config.model.task_type
    section = {"dpo": config.dpo, "kto": config.kto, "grpo": config.grpo}.get(task)
    if section is None or (task == "grpo" and not section.beta):
        return "none"
    if section.reference_model_name_or_path is not None:
        return "second model"
    if task != "grpo" and section.precompute_ref_log_probs:
        return "computed before"
    return "second model" if config.model.train_mode == "full" else "adapter off"


def _eval_rows(config: Config) -> int:
    training = config.training
    return 0 if training.eval_strategy in (None, "no") else training.per_device_eval_batch_size or 0

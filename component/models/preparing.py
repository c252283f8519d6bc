"""What both loaders do alike: read the base's configuration, place the model, check it, and describe the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.runtime.distributed import local_rank, world_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from component.models.precision import Precision
    from component.runtime.hardware import Hardware


def device_map(hardware: Hardware) -> dict[str, int | str]:
    """Put the whole model on the device of this process; left open, 4-bit loading and Unsloth would choose one."""
    return {"": local_rank() if hardware.kind == "cuda" else hardware.kind}


def max_positions(config: Mapping[str, Any]) -> int | None:
    """The number of positions a model was made for, from its config.json; None where it has no limit."""
    return (config.get("text_config") or config).get("max_position_embeddings")


def num_layers(config: Mapping[str, Any]) -> int | None:
    """The number of decoder layers, from config.json; None where it goes by another name, or is no such number."""
    text_config = config.get("text_config")
    number = (text_config if text_config and isinstance(text_config, dict) else config).get("num_hidden_layers")
    return number if type(number) is int and number > 0 else None


def offloads_embedding(model: ModelSection, hardware: Hardware) -> bool:
    """Whether input embeddings are kept apart from the rest of the model, in main memory."""
    return model.offload_embedding is True and hardware.kind != "cpu"


def offloads_head(model: ModelSection, hardware: Hardware) -> bool:
    """Whether the output head is."""
    return model.offload_head is True and hardware.kind != "cpu"


def offloaded_keys(model: ModelSection, hardware: Hardware) -> list[str]:
    """The keys that keep weights apart."""
    kept = {"offload_embedding": offloads_embedding(model, hardware), "offload_head": offloads_head(model, hardware)}
    return [key for key, is_kept in kept.items() if is_kept]


def explain_shared_head(key: str) -> str:
    """Why embeddings or head cannot be kept apart where they are one matrix."""
    return (
        f"{key}: this model's output head is its input embeddings (tie_word_embeddings), of which the device needs "
        f"one or the other all the time; drop {key}"
    )


def check_shared_head(keys: Sequence[str], config: Mapping[str, Any]) -> None:
    """Refuse to keep them apart where config.json says that they are one matrix.

    What it leaves open, or says of a model within another, is seen when the weights are loaded.

    Args:
        keys: that keep weights apart, of `offloaded_keys`.

    Raises:
        UserError: naming the first of them.
    """
    if keys and "text_config" not in config and config.get("tie_word_embeddings") is True:
        raise UserError(explain_shared_head(keys[0]))


def check_one_process(keys: Sequence[str]) -> None:
    """Refuse to keep embeddings or head in main memory where several processes train.

    Args:
        keys: that keep weights apart, of `offloaded_keys`.

    Raises:
        UserError: naming the first of them.
    """
    if keys and world_size() > 1:
        raise UserError(
            f"{keys[0]}: torch's DistributedDataParallel takes no model that is partly in main memory; train with one "
            f"process, or drop {' and '.join(keys)}"
        )


def explain_offload(model: ModelSection, hardware: Hardware) -> list[str]:
    """Notices where the whole model is in main memory."""
    if hardware.kind != "cpu":
        return []
    asked = {"offload_embedding": model.offload_embedding is True, "offload_head": model.offload_head is True}
    return [f"{key}: all of the model is in main memory on a CPU" for key, is_asked in asked.items() if is_asked]


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that has ids beyond the model's embeddings.

    Raises:
        UserError: with both sizes.
    """
    embeddings = model.get_input_embeddings()
    # An adapter that trains rows of them wraps them.
    num_embeddings = getattr(embeddings, "original_module", embeddings).num_embeddings
    highest = max(tokenizer.get_vocab().values())
    if highest >= num_embeddings:
        raise UserError(
            f"tokenizer_name_or_path: the tokenizer has ids up to {highest}, the model {num_embeddings} embeddings; "
            "use the model's own tokenizer"
        )


def settle_frozen_weights(prepared: Any, base: PreTrainedModel, model: ModelSection, precision: Precision) -> list[str]:
    """Give the frozen base of a model with adapters the number format that it is computed from; returns notices."""
    from component.models.fp8_base import leave_to_each_process, round_base
    from component.models.quantization import dequantize_layers

    if model.dequantize_base:
        dequantize_layers(prepared, compute_dtype=precision.compute_dtype)
    if not model.fp8_base:
        return []
    notice = round_base(base)
    leave_to_each_process(prepared)
    return [notice] if notice else []


def set_training_flags(model: PreTrainedModel) -> None:
    """Switch the key/value cache off and the load balancing of experts on."""
    # transformers recognises packed rows only without a cache.
    model.config.use_cache = False
    if hasattr(model.config, "output_router_logits"):
        model.config.output_router_logits = True


def asked_quantization(model: ModelSection) -> str | None:
    """The weights that a config asks for, "4-bit nf4"; None for those of 16 bit and more."""
    if model.fp8_base:
        return "8-bit floats"
    if model.train_mode != "qlora":
        return None
    return "8-bit" if model.quantization == "int8" else f"4-bit {model.bnb_4bit_quant_type}"


def describe_asked(model: ModelSection) -> dict[str, Any]:
    """`asked` of a LoadedModel."""
    return {
        "dtype": model.dtype,
        "bf16": model.bf16,
        "fp16": model.fp16,
        "attn_implementation": model.attn_implementation,
        "quantization": asked_quantization(model),
        "offload_embedding": model.offload_embedding,
        "offload_head": model.offload_head,
        "tiled_mlp": model.tiled_mlp,
        "gradient_checkpointing": model.gradient_checkpointing,
    }


def describe_savings(model: ModelSection, hardware: Hardware) -> dict[str, bool]:
    """The part of `got` about what is kept off the device or computed piece by piece."""
    return {
        "offload_embedding": offloads_embedding(model, hardware),
        "offload_head": offloads_head(model, hardware),
        "tiled_mlp": model.tiled_mlp,
    }


def describe_precision(precision: Precision) -> dict[str, Any]:
    """The part of `got` that both loaders share."""
    return {
        "dtype": precision.load_dtype,
        "compute_dtype": precision.compute_dtype,
        "bf16": precision.bf16,
        "fp16": precision.fp16,
    }

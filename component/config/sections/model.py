"""The section of the model: which one is loaded, by whom and in what form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import MISSING

from component.config.keys import ADAPTER_MODES, LANGUAGE_MODEL_TASKS, key
from component.config.sections.preference import ReferenceModelKeys
from component.config.sections.shared import (
    CacheKeys,
    LossMemoryKeys,
    PackingKeys,
    PrecisionKeys,
    SequenceKeys,
    ShardingKeys,
    TaskKeys,
)


@dataclass(frozen=True)
class ModelSection(
    TaskKeys, SequenceKeys, PrecisionKeys, PackingKeys, LossMemoryKeys, CacheKeys, ShardingKeys, ReferenceModelKeys
):
    """Which model is loaded, by whom and in what form."""

    model_name_or_path: str = key(MISSING, "Hub id or local folder of the model; a run folder works too.")
    model_revision: str | None = key(None, "Branch, tag or commit of a hub model.")
    tokenizer_name_or_path: str | None = key(None, "Tokenizer, where it is not the model's own.")
    new_tokens: list[str] = key(
        [],
        'Texts that become tokens of their own, such as ["<tool>", "</tool>"], wherever they stand in your data. Their '
        "rows of embeddings and output head start as the mean of their former parts and are trained, beside an adapter "
        "they alone; they are saved with it. They are ordinary tokens: content_control_tokens leaves them as they are.",
        one_or_many=True,
    )
    trust_remote_code: bool = key(False, "Allow Python code that a hub model brings.")
    use_unsloth: bool | Literal["auto", "require"] = key(
        False,
        "Load through Unsloth: false, true (else fall back to vanilla), auto (where it helps), require (or stop).",
    )
    model_loader: str | None = key(
        None, "Loader by its name, for one of your own in plugins.", default_note="use_unsloth decides"
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = key(
        "auto",
        "Number format of the loaded weights; auto follows fp16/bf16, and keeps float32 masters for full training.",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention", "varlen"] = key(
        "auto",
        "Attention implementation; auto probes what works here. varlen: packed rows on torch's variable-length kernel, "
        "or on flex_attention where the model needs it, other rows as with sdpa.",
        loaders=("vanilla",),
    )
    rope_scaling: dict[str, Any] = key(
        {},
        "Stretch rotary positions beyond the length that the model was made for: {rope_type: yarn, factor: 4.0}; also "
        "linear and dynamic.",
        loaders=("vanilla",),
    )
    freeze_trainable_layers: int | None = key(
        None,
        "Train the last so many layers in full, and nothing else of the model.",
        modes=("full",),
        above=0,
        default_note="all",
    )
    quantization: Literal["int4", "int8"] = key(
        "int4",
        "What bitsandbytes makes of the frozen base: 4-bit weights, or 8-bit ones, which are closer to 16 bit, larger "
        "and slower.",
        modes=("qlora",),
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = key("nf4", "4-bit number format of the frozen base.", modes=("qlora",))
    bnb_4bit_use_double_quant: bool = key(True, "Quantize the quantization constants as well.", modes=("qlora",))
    dequantize_base: bool | Literal["auto"] = key(
        False,
        "Dequantize the frozen 4-bit base once, after loading, and keep it in 16 bit: the same numbers in every step, "
        "without the time that each pass takes for them, in 3.9 times the memory of the 4-bit weights. auto: where the "
        "device has that memory and it saves time; where the speed of the device is not known, as on a CPU, ahead of "
        "activations and rows.",
        modes=("qlora",),
        memory=True,
    )
    fp8_base: bool = key(
        False,
        "Round the frozen linear layers to 8-bit floats after loading, one scale for each output feature, and multiply "
        "in 8 bit: half the memory of 16 bit, faster on cards with tensor cores for it (compute capability 8.9: Ada, "
        "Hopper, Blackwell), with the noise of rounding weights, activations and gradients to 3 bits of mantissa.",
        modes=("lora",),
    )
    fused_lora: bool = key(
        True,
        "Compute layers and adapters in fewer passes over the activations than Unsloth does, and leave out of a "
        "recomputation what nobody reads; Unsloth does not compile such layers as a whole, as it does others where "
        "rows are not packed. Not with lora_dropout or use_dora.",
        modes=ADAPTER_MODES,
        loaders=("unsloth",),
    )
    checkpoint_skip_layers: int = key(
        0,
        "Decoder layers, evenly spaced, that keep their activations although gradient_checkpointing is on: each costs "
        "memory and saves a recomputation.",
        tasks=LANGUAGE_MODEL_TASKS,
        minimum=0,
        default_note="with gradient_checkpointing: auto what fits the device",
        memory=True,
    )
    quantized_cache: bool = key(
        True,
        "Keep 4-bit weights below cache_dir once they were made of a checkpoint of 1 GiB or more, and read them from "
        "there: the same numbers from a third of the bytes. It takes at most cache_max_gib, and leaves 10 GiB of the "
        "disk free; where it cannot write, a notice says so and the run goes on.",
        modes=("qlora",),
        cosmetic=True,
    )
    offload_embedding: bool | Literal["auto"] = key(
        False,
        "Keep the frozen input embeddings in main memory and look rows up there: less memory on the device by "
        "vocabulary x hidden size, for one wait of the host in each forward pass. cuBLAS's workspaces are 8 MiB then, "
        "unless CUBLAS_WORKSPACE_CONFIG says otherwise. auto: where nothing fits the device with them on it, or "
        "only padded rows, or what takes a twentieth longer, and not where that cannot be, as with a tied output head.",
    )
    offload_head: bool | Literal["auto"] = key(
        False,
        "Keep the frozen output head in main memory and copy it to the device whenever scores are made: less memory on "
        "the device by vocabulary x hidden size outside the loss, for a copy in each forward pass, and one or two for "
        "each token that is generated. auto: as offload_embedding's, after it, and not for grpo.",
    )
    tiled_mlp: bool = key(
        False,
        "Compute dense MLPs for as many tokens at once as the model has features, and again in the backward pass: long "
        "rows take less memory, and more time.",
    )
    hub_token: str | None = key(
        None, "Access token for private models; only as an interpolation such as ${oc.env:HF_TOKEN}.", cosmetic=True
    )
    hub_endpoint: str | None = key(None, "Address of a mirror of the model hub.", cosmetic=True)
    offline: bool = key(False, "Use local files and the local hub cache only.", cosmetic=True)

"""Quantized weights: how they are made, which quantized checkpoints train, and what bitsandbytes needs on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from component.config.errors import MachineError, UserError
from component.config.schema import ModelSection
from component.models.language_model import TOWER_WORDS
from component.models.precision import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

#: Patterns of what stays in 16 bit in multimodal and mixture-of-experts models: towers, projectors and routers.
UNQUANTIZED_PARTS = (
    r"lm_head",
    r"score",
    rf".*({'|'.join(TOWER_WORDS)})",
    r".*(mlp|block_sparse_moe|moe)\.gate$",
    r".*router",
)
#: What checkpoints that are trained on are quantized with: in 4 and in 8 bit.
BITSANDBYTES = ("bitsandbytes 4-bit", "bitsandbytes 8-bit")
MULTIMODAL_OR_EXPERTS = ("vision_config", "audio_config", "num_experts", "num_local_experts", "n_routed_experts")


def check_quantization(config: Mapping[str, Any], train_mode: str) -> str | None:
    """Check that a checkpoint's own quantization fits the training mode, from its config.json alone.

    Returns:
        How the checkpoint is quantized ("bitsandbytes 4-bit"), None if it is not.

    Raises:
        UserError: the mode needs 16-bit weights, or the quantization cannot be trained on or read.
    """
    quantization = config.get("quantization_config")
    if not quantization:
        return None
    if not isinstance(quantization, Mapping):
        raise UserError(
            f"model_name_or_path: quantization_config in config.json is {quantization!r} and no JSON object; "
            "mend or remove it"
        )
    shown = stored_quantization(config)
    if train_mode != "qlora":
        raise UserError(
            f"train_mode: {train_mode} needs 16-bit weights, and the checkpoint is quantized ({shown}); "
            "use train_mode: qlora, or the checkpoint that it was made from"
        )
    if shown not in BITSANDBYTES:
        raise UserError(
            f"model_name_or_path: checkpoints quantized with {shown} cannot be trained on; "
            "use a 16-bit or a bitsandbytes checkpoint"
        )
    return shown


def stored_quantization(config: Mapping[str, Any]) -> str | None:
    """How a checkpoint is quantized by its config.json ("bitsandbytes 4-bit"), trained on or not; None if it is not."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping) or not quantization:
        return None
    method = str(quantization.get("quant_method", "bitsandbytes"))
    is_4bit = bool(quantization.get("load_in_4bit"))
    return BITSANDBYTES[0 if is_4bit else 1] if is_4bit or method == "bitsandbytes" else method


def build_quantization_config(
    model: ModelSection, precision: Precision, config: Mapping[str, Any]
) -> BitsAndBytesConfig | None:
    """Build the settings of a qlora run's weights; None for other modes and for checkpoints that are quantized already.

    Args:
        config: the model's config.json.

    Raises:
        UserError: see `check_quantization`.
        MachineError: bitsandbytes is missing.
    """
    if check_quantization(config, model.train_mode) or model.train_mode != "qlora":
        return None
    if model.quantization == "int8":
        return build_8bit_config(unquantized=unquantized_parts(config))
    return build_4bit_config(
        quant_type=model.bnb_4bit_quant_type,
        use_double_quant=model.bnb_4bit_use_double_quant,
        compute_dtype=precision.compute_dtype,
        unquantized=unquantized_parts(config),
    )


def unquantized_parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Patterns of the modules that stay in 16 bit, from a model's config.json; see `build_4bit_config`."""
    # transformers keeps the output head by itself, whatever its name, as long as nothing else is named.
    return UNQUANTIZED_PARTS if any(config.get(part) for part in MULTIMODAL_OR_EXPERTS) else ()


def build_4bit_config(
    *, quant_type: str, use_double_quant: bool, compute_dtype: str, unquantized: Sequence[str] = ()
) -> BitsAndBytesConfig:
    """4-bit settings of bitsandbytes (https://arxiv.org/abs/2305.14314).

    Args:
        unquantized: patterns of module names that stay in 16 bit; none leaves transformers its own choice, the head.

    Raises:
        MachineError: bitsandbytes is missing.
    """
    import torch
    from transformers import BitsAndBytesConfig

    _require_bitsandbytes()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=use_double_quant,
        bnb_4bit_compute_dtype=getattr(torch, compute_dtype),
        llm_int8_skip_modules=list(unquantized) or None,
    )


def build_8bit_config(*, unquantized: Sequence[str] = ()) -> BitsAndBytesConfig:
    """8-bit settings of bitsandbytes, LLM.int8() (https://arxiv.org/abs/2208.07339); see `build_4bit_config`."""
    from transformers import BitsAndBytesConfig

    _require_bitsandbytes()
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(unquantized) or None)


def _require_bitsandbytes() -> None:
    if find_spec("bitsandbytes") is None:
        raise MachineError("train_mode: qlora needs bitsandbytes, which is not installed; pip install bitsandbytes")


def eight_bit_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The 8-bit linear layers of a model by name; empty without bitsandbytes."""
    if "bitsandbytes" not in sys.modules:
        return {}
    import bitsandbytes

    return {name: module for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)}


def describe_layers(model: nn.Module, section: ModelSection, own: str | None) -> str | None:
    """The quantized layers of a loaded model in words, for run.json; None where there are none.

    Args:
        own: from `check_quantization`.
    """
    num_4bit, num_8bit = len(four_bit_layers(model)), len(eight_bit_layers(model))
    num_dequantized = len(dequantized_layers(model))
    if section.fp8_base:
        return f"8-bit floats, rounded after loading ({len(fp8_layers(model))} layers)"
    if num_dequantized:
        kind = own or f"4-bit {section.bnb_4bit_quant_type}"
        return f"{kind}, dequantized once ({num_dequantized} layers)"
    if own is not None:
        return f"{own}, the checkpoint's own ({num_4bit or num_8bit} {'4' if num_4bit else '8'}-bit layers)"
    if num_8bit:
        return f"8-bit ({num_8bit} layers)"
    double = ", double quantization" if section.bnb_4bit_use_double_quant else ""
    return f"4-bit {section.bnb_4bit_quant_type}{double} ({num_4bit} layers)" if num_4bit else None


def four_bit_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The 4-bit linear layers of a model by name; empty without bitsandbytes."""
    if "bitsandbytes" not in sys.modules:
        return {}
    import bitsandbytes

    return {name: module for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def dequantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that `dequantize_layers` has made, by name."""
    if "component.models.dequantized" not in sys.modules:
        return {}
    from component.models.dequantized import DequantizedLinear

    return {name: module for name, module in model.named_modules() if isinstance(module, DequantizedLinear)}


def fp8_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that `component.models.fp8_base` has made, by name."""
    if "component.models.fp8_linear" not in sys.modules:
        return {}
    from component.models.fp8_linear import Fp8Linear

    return {name: module for name, module in model.named_modules() if isinstance(module, Fp8Linear)}


def prepare_four_bit_layers(model: nn.Module, *, compute_dtype: str) -> int:
    """Let 4-bit layers compute in the run's number format, and keep them trainable on a CPU.

    Returns:
        Number of 4-bit layers.
    """
    import torch

    layers = four_bit_layers(model)
    for layer in layers.values():
        # A checkpoint that brings its own quantization also brings its own compute dtype.
        layer.compute_dtype = getattr(torch, compute_dtype)
        # bitsandbytes 0.50 repacks the weight at the first evaluation on AVX512-BF16 hosts, and training after that
        # silently learns nothing; delete when it unpacks.
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def dequantize_layers(model: nn.Module, *, compute_dtype: str) -> int:
    """Replace each 4-bit layer of a model that is to be trained, adapters attached or not, by one of 16 bit.

    The new layer holds what the old one made of its weight in every pass, so that it gives the same numbers.

    Args:
        compute_dtype: number format of the computation, by torch's name.

    Returns:
        Number of layers.
    """
    names = list(four_bit_layers(model))
    for name in names:  # no list of the layers: each has to go before the next one comes
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _dequantized(model.get_submodule(name), compute_dtype))
    return len(names)


def _dequantized(layer: Any, compute_dtype: str) -> nn.Module:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    from component.models.dequantized import DequantizedLinear

    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(getattr(torch, compute_dtype))
    layer.weight = None  # it has the layer for an attribute, and would stay until garbage is collected
    return DequantizedLinear(weight, layer.bias)


def dequantize(model: PreTrainedModel, *, dtype: torch.dtype) -> None:
    """Replace quantized layers by plain ones of the weights that they compute with, one after the other.

    Args:
        model: without an adapter.
        dtype: of the new weights.
    """
    readers = {type(step) for way in model.hf_quantizer.get_weight_conversions() for step in way.operations}
    model.dequantize(dtype=dtype)
    # transformers 5.17 would undo, when it saves, how it read quantized files, and cannot; delete when it forgets that.
    model._weight_conversions = [
        way
        for way in model._weight_conversions or ()
        if not readers.intersection(map(type, getattr(way, "operations", ())))
    ]


def quantized_and_back(weight: Tensor, settings: BitsAndBytesConfig) -> Tensor:
    """What quantization leaves of a weight, in float32.

    Args:
        weight: of a linear layer, shape (out, in).
    """
    from bitsandbytes import functional

    if settings.load_in_8bit:
        values, scales, _ = functional.int8_vectorwise_quant(weight)
        return functional.int8_vectorwise_dequant(values, scales).float()
    values, state = functional.quantize_4bit(
        weight, quant_type=settings.bnb_4bit_quant_type, compress_statistics=settings.bnb_4bit_use_double_quant
    )
    return functional.dequantize_4bit(values, state).float()

"""`fp8_base`: the frozen linear layers of a model that an adapter trains, rounded to 8-bit floats after loading."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.decoder_layers import find_layers
from component.models.quantization import UNQUANTIZED_PARTS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from component.models.precision import Precision
    from component.runtime.hardware import Hardware

#: The first NVIDIA cards with tensor cores for 8-bit floats: Ada. Hopper has 9.0.
CAPABILITY = (8, 9)


def check_fp8_base(model: ModelSection, hardware: Hardware, precision: Precision) -> None:
    """Check that the device multiplies 8-bit floats; a CPU does, slowly.

    Raises:
        UserError: it does not, or the computation is not in bfloat16.
    """
    if not model.fp8_base or hardware.kind == "cpu":
        return
    capability = hardware.compute_capability
    if hardware.kind != "cuda" or capability is None or capability < CAPABILITY:
        has = f" has {capability[0]}.{capability[1]}" if capability else " has none"
        raise UserError(
            f"fp8_base: needs an NVIDIA GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or more, and "
            f"{hardware.name}{has}; drop it, or use train_mode: qlora"
        )
    if precision.compute_dtype != "bfloat16":
        raise UserError(
            f"fp8_base: products of 8-bit floats come out in bfloat16, and the run computes in "
            f"{precision.compute_dtype}; use bf16: true"
        )


def round_base(model: PreTrainedModel) -> str | None:
    """Replace the frozen linear layers of the decoder, under adapters or not, by layers in 8-bit floats.

    Routers of experts stay, as do layers with a side that tensor cores do not take.

    Args:
        model: without PEFT's wrapper around it.

    Returns:
        A notice of what stays in 16 bit, None where nothing does.

    Raises:
        UserError: all of it would.
    """
    from component.models.fp8_linear import Fp8Linear, takes

    _, layers = find_layers(model)
    kept = rounded = 0
    for name in [name for name, _ in layers.named_modules()]:  # no list of the layers: each goes before the next comes
        layer: Any = layers.get_submodule(name)
        if not _is_frozen_linear(layer) or any(re.match(part, name) for part in UNQUANTIZED_PARTS):
            continue
        if not takes(layer):
            kept += 1
            continue
        parent, _, child = name.rpartition(".")
        setattr(layers.get_submodule(parent), child, Fp8Linear(layer.weight.detach(), layer.bias))
        rounded += 1
    if not rounded:
        raise UserError(
            f"fp8_base: no layer of this {model.config.model_type} model is a linear one of torch with sides that are "
            "multiples of 16; drop fp8_base"
        )
    # transformers keeps the weights of all experts of a layer in one tensor.
    experts = sum(parameter.ndim == 3 and "expert" in name for name, parameter in layers.named_parameters())
    stays = [
        *([f"{kept} linear layers stay in 16 bit, their sides are no multiples of 16"] if kept else []),
        *([f"the experts stay in 16 bit ({experts} tensors), they are no linear layers"] if experts else []),
    ]
    return f"fp8_base: {'; '.join(stays)}" if stays else None


def leave_to_each_process(model: nn.Module) -> None:
    """Keep rounded layers out of what DistributedDataParallel sends around: every process has rounded the same weights.

    gloo has no 8-bit floats, and scales, which are buffers, would be sent in every forward pass.

    Args:
        model: that is trained, with PEFT's wrapper.
    """
    from torch.nn.parallel import DistributedDataParallel

    from component.models.quantization import fp8_layers

    names = [f"{name}.{part}" for name in fp8_layers(model) for part in ("weight", "weight_scale")]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


def _is_frozen_linear(layer: Any) -> bool:
    from torch import nn

    return type(layer) is nn.Linear and not layer.weight.requires_grad

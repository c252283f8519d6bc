"""Number formats: what the weights are loaded in, what the computation uses, and what the trainer is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.config.schema import ModelSection

if TYPE_CHECKING:
    from component.runtime.hardware import Hardware


@dataclass(frozen=True)
class Precision:
    """The number formats of a run, by torch's names.

    Attributes:
        load_dtype: of the weights that are not quantized.
        compute_dtype: of matrix products: autocast's, and that of 4-bit layers.
        bf16, fp16: the trainer's autocast flags; fp16 brings loss scaling.
        notices: what differs from the config, one line each.
    """

    load_dtype: str
    compute_dtype: str
    bf16: bool
    fp16: bool
    notices: tuple[str, ...] = ()


def resolve_precision(model: ModelSection, hardware: Hardware) -> Precision:
    """Decide the number formats.

    An explicit `bf16` or `fp16` decides the computation, then a 16-bit `dtype`, else bf16 where the hardware is fast at
    it, fp16 on another GPU, float32 on a CPU. Full training keeps float32 master weights under autocast and adapter
    training loads 16-bit weights, unless `dtype` says otherwise. Adapter weights themselves are always float32 (PEFT's
    autocast_adapter_dtype), so that a gradient scaler can unscale them.

    Raises:
        UserError: bf16 on hardware without it, or keys that exclude each other.
    """
    notices: list[str] = []
    compute = _compute_dtype(model, hardware, notices)
    load = model.dtype
    if load == "auto":
        load = "float32" if model.train_mode == "full" else compute
    elif load == "float16" and hardware.kind == "cpu":
        load = "float32"
        notices.append("dtype: float16 becomes float32 on a CPU")
    elif load == "bfloat16" and not hardware.supports_bf16:
        raise UserError(f"dtype: {hardware.name} has no fast bfloat16; use dtype: auto")
    elif load in ("float16", "bfloat16") and compute not in (load, "float32"):
        flag = "bf16" if compute == "bfloat16" else "fp16"
        raise UserError(f"dtype: {load} weights cannot train with {flag}: true; use dtype: auto, or drop {flag}")
    if load == "float16" and model.train_mode == "full":
        raise UserError(
            "dtype: float16 weights cannot be trained in full, their gradients cannot be unscaled; "
            "use dtype: auto with fp16: true, which keeps float32 masters"
        )
    return Precision(
        load_dtype=load,
        compute_dtype=compute,
        bf16=compute == "bfloat16",
        fp16=compute == "float16",
        notices=tuple(notices),
    )


def _compute_dtype(model: ModelSection, hardware: Hardware, notices: list[str]) -> str:
    if model.bf16 and model.fp16:
        raise UserError("bf16: true excludes fp16: true; keep one of them")
    if model.bf16:
        if not hardware.supports_bf16:
            fix = "drop bf16 (float32 is used then)" if hardware.kind == "cpu" else "use fp16: true"
            raise UserError(f"bf16: {hardware.name} has no fast bfloat16; {fix}")
        return "bfloat16"
    if model.fp16:
        if hardware.kind == "cpu":
            notices.append("fp16: true becomes float32 on a CPU")
            return "float32"
        return "float16"
    may_use_bf16 = hardware.supports_bf16 and model.bf16 is None
    may_use_fp16 = hardware.kind != "cpu" and model.fp16 is None
    if model.dtype == "bfloat16" and may_use_bf16:
        return "bfloat16"
    if model.dtype == "float16":
        return "float16" if may_use_fp16 else "float32"
    if may_use_bf16:
        return "bfloat16"
    return "float16" if may_use_fp16 else "float32"

"""Which attention implementation a model gets: what was asked for, what works here, and why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.language_model import loaded_class

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from component.runtime.hardware import Hardware


@dataclass(frozen=True)
class AttentionChoice:
    """An attention implementation, by transformers' names, with the reason for it."""

    asked: str
    got: str
    reason: str


def choose_attention(
    asked: str, model_config: PretrainedConfig, hardware: Hardware, *, compute_dtype: str
) -> AttentionChoice:
    """Choose the attention implementation; `auto` takes FlashAttention 2 where it works, then SDPA, then eager.

    Args:
        asked: the value of `attn_implementation`.
        compute_dtype: number format of the computation, by torch's name.

    Raises:
        UserError: an explicit choice that cannot work, with what would.
    """
    model_class = loaded_class(model_config)
    obstacles = {
        "flash_attention_2": _flash_obstacle(model_class, hardware, compute_dtype),
        "sdpa": _class_obstacle(model_class, "_supports_sdpa"),
        "flex_attention": _flex_obstacle(model_class, hardware),
        "eager": None,
    }
    if asked != "auto":
        obstacle = obstacles[asked]
        if obstacle is not None:
            raise UserError(f"attn_implementation: {asked} cannot be used: {obstacle}; use attn_implementation: auto")
        return AttentionChoice(asked, asked, "as asked")
    if obstacles["flash_attention_2"] is None:
        return AttentionChoice(asked, "flash_attention_2", "flash-attn is installed and works here")
    if obstacles["sdpa"] is None:
        return AttentionChoice(asked, "sdpa", f"no FlashAttention 2: {obstacles['flash_attention_2']}")
    return AttentionChoice(asked, "eager", f"no SDPA: {obstacles['sdpa']}")


def _class_obstacle(model_class: Any | None, flag: str) -> str | None:
    # Code that a checkpoint brings is not known before it is loaded; transformers checks it then.
    if model_class is None or getattr(model_class, flag, False):
        return None
    return f"{model_class.__name__} does not support it"


def _flash_obstacle(model_class: Any | None, hardware: Hardware, compute_dtype: str) -> str | None:
    if hardware.kind != "cuda":
        return f"it needs a CUDA GPU, and this is {hardware.name}"
    if hardware.compute_capability is not None and hardware.compute_capability < (8, 0):
        major, minor = hardware.compute_capability
        return f"it needs compute capability 8.0, and {hardware.name} has {major}.{minor}"
    if compute_dtype not in ("float16", "bfloat16"):
        return f"it computes in 16 bit, and this run in {compute_dtype}"
    if find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    try:
        import flash_attn  # noqa: F401  (a build for another torch is found but does not load)
    except (ImportError, OSError) as error:
        return f"flash-attn does not load: {error}".splitlines()[0]
    return _class_obstacle(model_class, "_supports_flash_attn")


def _flex_obstacle(model_class: Any | None, hardware: Hardware) -> str | None:
    if hardware.kind != "cuda":
        return f"it has no backward pass on {hardware.name}"
    return _class_obstacle(model_class, "_supports_flex_attn")

"""Which attention implementation a model gets: what was asked for, what works here, and why."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.kernel_check import HeadShape, check_kernels
from component.models.language_model import loaded_class
from component.models.packed_attention import PACKED_ROWS, PackedAttention
from component.models.varlen_attention import register_varlen
from component.runtime.distributed import local_rank

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from component.runtime.hardware import Hardware

#: In the order that `auto` takes them in, for unpacked and for packed rows. transformers' own flex_attention is taken
#: only where it is asked for: it let packed samples see each other on a GPU with torch 2.11.
PREFERRED = ("flash_attention_2", "sdpa", "eager")
PREFERRED_PACKED = ("flash_attention_2", "varlen", "sdpa", "eager")
#: What `varlen` needs of a model's class: attention behind transformers' interface, without what SDPA cannot do, such
#: as sinks, and masks that need not be tensors.
VARLEN_FLAGS = ("_supports_attention_backend", "_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn")


@dataclass(frozen=True)
class AttentionChoice:
    """An attention implementation, by transformers' names and our `varlen`, with the reason for it.

    Attributes:
        kernel: what `varlen` runs packed rows on, known once it is settled.
    """

    asked: str
    got: str
    reason: str
    kernel: str | None = None

    def describe(self) -> dict[str, str]:
        """Its part of the `got` of a LoadedModel."""
        return {"attn_implementation": self.got, "attn_implementation_reason": self.reason}

    def packed(self) -> PackedAttention:
        """What packed rows run on."""
        return PackedAttention(self.kernel or PACKED_ROWS[self.got], self.reason)


def choose_attention(
    asked: str,
    model_config: PretrainedConfig,
    hardware: Hardware,
    *,
    compute_dtype: str,
    packing: bool,
    obstacles: Mapping[str, str] | None = None,
) -> AttentionChoice:
    """Choose the attention implementation; `auto` takes the first of `PREFERRED` or `PREFERRED_PACKED` that works.

    Args:
        asked: the value of `attn_implementation`.
        compute_dtype: number format of the computation, by torch's name.
        packing: whether rows may be packed.
        obstacles: implementations that turned out not to work, with the reason.

    Raises:
        UserError: an explicit choice that cannot work, with what would.
    """
    found = {**_obstacles(model_config, hardware, compute_dtype), **(obstacles or {})}
    if asked != "auto":
        obstacle = found[asked]
        if obstacle is not None:
            raise UserError(f"attn_implementation: {asked} cannot be used: {obstacle}; use attn_implementation: auto")
        return AttentionChoice(asked, asked, "as asked")
    order = PREFERRED_PACKED if packing else PREFERRED
    got = next(name for name in order if found[name] is None)
    groups = groupby(order[: order.index(got)], key=found.__getitem__)
    reason = "; ".join(f"no {' or '.join(names)}: {obstacle}" for obstacle, names in groups)
    return AttentionChoice(asked, got, reason or "it is installed and works here")


def settle_attention(
    choice: AttentionChoice,
    model_config: PretrainedConfig,
    hardware: Hardware,
    *,
    compute_dtype: str,
    packing: bool,
) -> AttentionChoice:
    """Try a choice of `varlen` on this process's GPU and make it known to transformers, or choose without it.

    Raises:
        UserError: it was chosen explicitly and does not work.
    """
    if choice.got != "varlen":
        return choice
    checked = check_kernels(
        head_shape(model_config),
        dtype=compute_dtype,
        device=f"{hardware.kind}:{local_rank()}",
        compiler_obstacle=_compiler_obstacle(),
    )
    if isinstance(checked, str):
        settings = {"compute_dtype": compute_dtype, "packing": packing, "obstacles": {"varlen": checked}}
        return choose_attention(choice.asked, model_config, hardware, **settings)
    register_varlen(checked.kernel)
    reasons = filter(None, (choice.reason, checked.reason, f"within {checked.error:.1g} of float64 here"))
    return replace(choice, reason="; ".join(reasons), kernel=checked.name)


def head_shape(model_config: PretrainedConfig) -> HeadShape:
    """The attention heads that a model's config.json tells of."""
    config = model_config.get_text_config()
    num_heads = config.num_attention_heads
    return HeadShape(
        num_heads=num_heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or num_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // num_heads,
        window=getattr(config, "sliding_window", None),
        cap=getattr(config, "attn_logit_softcapping", None),
    )


def _obstacles(model_config: PretrainedConfig, hardware: Hardware, compute_dtype: str) -> dict[str, str | None]:
    """Why each implementation cannot be used, as far as is known without trying; None where nothing is in its way."""
    model_class = loaded_class(model_config)
    return {
        "flash_attention_2": _flash_obstacle(model_class, hardware, compute_dtype),
        "varlen": _varlen_obstacle(model_class, model_config, hardware),
        "sdpa": _class_obstacle(model_class, "_supports_sdpa") or softcap_obstacle(model_config),
        "flex_attention": _flex_obstacle(model_class, model_config, hardware),
        "eager": None,
    }


def _class_obstacle(model_class: Any | None, flag: str) -> str | None:
    # Code that a checkpoint brings is not known before it is loaded; transformers checks it then.
    if model_class is None or getattr(model_class, flag, False):
        return None
    return f"{model_class.__name__} does not support it"


def softcap_obstacle(model_config: PretrainedConfig) -> str | None:
    """Why SDPA is not this model's attention; None where it is."""
    cap = getattr(model_config.get_text_config(), "attn_logit_softcapping", None)
    # transformers hands SDPA the cap and SDPA leaves it out: another function than the model was made with.
    return f"the model caps its attention scores at {cap:g}, and it cannot" if cap else None


def _dropout_obstacle(model_config: PretrainedConfig) -> str | None:
    dropout = getattr(model_config.get_text_config(), "attention_dropout", None)
    return f"the model has attention dropout ({dropout:g}), and it cannot" if dropout else None


def _gpu_obstacle(hardware: Hardware) -> str | None:
    if hardware.kind != "cuda":
        return f"it needs a CUDA GPU, and this is {hardware.name}"
    if hardware.compute_capability is not None and hardware.compute_capability < (8, 0):
        major, minor = hardware.compute_capability
        return f"it needs compute capability 8.0, and {hardware.name} has {major}.{minor}"
    return None


def _flash_obstacle(model_class: Any | None, hardware: Hardware, compute_dtype: str) -> str | None:
    obstacle = _gpu_obstacle(hardware)
    if obstacle:
        return obstacle
    if compute_dtype not in ("float16", "bfloat16"):
        return f"it computes in 16 bit, and this run in {compute_dtype}"
    if find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    try:
        import flash_attn  # noqa: F401  (a build for another torch is found but does not load)
    except (ImportError, OSError) as error:
        return f"flash-attn does not load: {error}".splitlines()[0]
    return _class_obstacle(model_class, "_supports_flash_attn")


def _varlen_obstacle(model_class: Any | None, model_config: PretrainedConfig, hardware: Hardware) -> str | None:
    """What is in the way of every kernel; what only some cannot do is found when they are tried."""
    obstacle = _gpu_obstacle(hardware) or _dropout_obstacle(model_config)
    if obstacle:
        return obstacle
    if model_class is None:
        return "the model brings its own code, which is not known to take it"
    obstacle = next(filter(None, (_class_obstacle(model_class, flag) for flag in VARLEN_FLAGS)), None)
    if obstacle:
        return obstacle
    config = model_config.get_text_config()
    if not hasattr(config, "num_attention_heads") or not hasattr(config, "hidden_size"):
        return "the size of the model's heads is not known"
    if getattr(config, "kv_lora_rank", None):
        return "the model has heads of two sizes"
    try:
        head_shape(model_config)
    except RuntimeError:  # transformers' answer where layers differ, as in Gemma 4
        return "the model's layers have heads of several shapes"
    return None


def _flex_obstacle(model_class: Any | None, model_config: PretrainedConfig, hardware: Hardware) -> str | None:
    if hardware.kind != "cuda":
        return f"it has no backward pass on {hardware.name}"
    return (
        _gpu_obstacle(hardware)
        or _dropout_obstacle(model_config)
        or _compiler_obstacle()
        or _class_obstacle(model_class, "_supports_flex_attn")
    )


def _compiler_obstacle() -> str | None:
    if find_spec("triton") is None:
        return "it is compiled with triton, which is not installed"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "it is compiled, and there is no C compiler"
    return None

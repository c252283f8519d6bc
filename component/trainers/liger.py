"""Whether Liger's fused kernels are used where the config leaves it open."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from component.trainers.task import RunContext


@dataclass(frozen=True)
class LigerChoice:
    """What was decided.

    Attributes:
        asked: the value of `use_liger_kernel`.
        got: whether they are used.
        reason: why, in words for a person.
    """

    asked: bool | str
    got: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Its part of run.json."""
        return asdict(self)


def choose_liger(asked: bool | str, context: RunContext, model_type: str) -> LigerChoice:
    """Decide for a next-token task; other tasks use it where it is asked for by true.

    Args:
        model_type: family of the model, by config.json.
    """
    if asked != "auto":
        return LigerChoice(asked, asked is True and context.loader == "vanilla", f"use_liger_kernel: {asked}".lower())
    obstacle = _obstacle(context, model_type)
    return LigerChoice(asked, obstacle is None, obstacle or f"it has kernels for {model_type}")


def _obstacle(context: RunContext, model_type: str) -> str | None:
    if context.loader != "vanilla":
        return f"the {context.loader} loader has its own kernels"
    if context.hardware.kind != "cuda":
        return f"it runs on CUDA GPUs, and this is {context.hardware.name}"
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return None if model_type in MODEL_TYPE_TO_APPLY_LIGER_FN else f"it does not know the family {model_type!r}"

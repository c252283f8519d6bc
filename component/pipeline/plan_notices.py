"""What a plan does not count, or counts as it is and nobody would guess: a line each."""

from __future__ import annotations

from collections.abc import Iterator

from component.config.load import Config
from component.config.nodes import excerpt
from component.planning.embeddings import SAVED
from component.planning.gpus import GIB, Gpu
from component.planning.optimizer import is_counted
from component.planning.read_config import Setting, uncounted_modules
from component.planning.shape import ModelShape

FIXED_SEGMENTS = (
    "torch's segments of memory are of fixed size here, so that more is reserved: as inside WSL 2, on Tegra boards, "
    "beside vLLM, and where PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF is set without expandable_segments:True"
)


def plan_notices(config: Config, shape: ModelShape, setting: Setting, card: Gpu | None) -> Iterator[str]:
    """All of them.

    Args:
        card: whole; None where none is known.
    """
    if not setting.grows_segments:
        yield FIXED_SEGMENTS
    yield from _tell_no_cap(config, card)
    yield from _tell_experts(config, shape)
    yield from _tell_uncounted(config, shape)


def _tell_no_cap(config: Config, card: Gpu | None) -> Iterator[str]:
    """A cap that the card itself is below."""
    cap = config.training.max_memory_gib
    if card is not None and cap is not None and cap * GIB > card.memory_bytes:
        yield f"max_memory_gib: {cap:g} has no effect: {card.title} has {card.memory_bytes / GIB:.3g} GiB"


def _tell_experts(config: Config, shape: ModelShape) -> Iterator[str]:
    """What is neither adapted nor quantized, and may be most of a model."""
    if config.model.train_mode == "full" or not shape.experts_per_layer:
        return
    billions = shape.num_layers * shape.experts_per_layer / 1e9
    kept = " and stay in 16 bit" if config.model.train_mode == "qlora" else ""
    yield f"{billions:.1f} billion parameters of experts and their routers get no adapter{kept}"


def _tell_uncounted(config: Config, shape: ModelShape) -> Iterator[str]:
    """What a plan leaves out: what processes share out, an optimizer's own states, and names of modules.

    A run refuses names that are misspelt.
    """
    for key in ("deepspeed", "fsdp"):
        if getattr(config.training, key):
            yield (
                f"{key}: the plan is that of one process alone; weights, gradients and optimizer states that it shares "
                "out among processes are counted whole"
            )
    if not is_counted(config.training.optim):
        yield (
            f"optim: {config.training.optim} is not counted in the plan, which has the states of adamw_torch in its "
            "place: two float32 numbers for each trained parameter"
        )
    known = {
        "lora_target_modules": ", ".join(linear.name for linear in shape.linears),
        "modules_to_save": " and ".join(SAVED),
    }
    for key, name in uncounted_modules(config, shape):
        yield (
            f"{key}: {excerpt(repr(name))} is not counted in the plan, which knows {known[key]}; a run refuses a name "
            "that the model does not have"
        )

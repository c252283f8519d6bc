"""Bytes of optimizer states, and what a step takes besides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerMemory:
    """Bytes for each trained parameter.

    Attributes:
        state: kept between steps, on the device.
        step: taken for the duration of a step.
        copies: float32 copies of one tensor, of the largest at the peak, that a step makes; two more of 16-bit ones.
        paged: kept in managed memory, which torch does not count and which can leave the device.
    """

    state: float
    step: float = 0.0
    paged: float = 0.0
    copies: int = 0


#: bitsandbytes' 8-bit states: a byte, and a float32 constant for each block of 256.
EIGHT_BIT = 1 + 4 / 256
#: By transformers' names. The foreach implementation of torch's own AdamW makes a list of square roots as large as the
#: parameters; fused and bitsandbytes' kernels make nothing.
OPTIMIZERS: dict[str, OptimizerMemory] = {
    "adamw_torch": OptimizerMemory(8, step=4),
    "adamw_torch_fused": OptimizerMemory(8),
    "adamw_8bit": OptimizerMemory(2 * EIGHT_BIT),
    "adamw_bnb_8bit": OptimizerMemory(2 * EIGHT_BIT),
    "paged_adamw_32bit": OptimizerMemory(0, paged=8),
    "paged_adamw": OptimizerMemory(0, paged=8),
    "paged_adamw_8bit": OptimizerMemory(0, paged=2 * EIGHT_BIT),
    "ademamix": OptimizerMemory(12),
    "ademamix_8bit": OptimizerMemory(3 * EIGHT_BIT),
    "paged_ademamix_32bit": OptimizerMemory(0, paged=12),
    "paged_ademamix_8bit": OptimizerMemory(0, paged=3 * EIGHT_BIT),
    "lion_32bit": OptimizerMemory(4),
    "lion_8bit": OptimizerMemory(EIGHT_BIT),
    "paged_lion_32bit": OptimizerMemory(0, paged=4),
    "paged_lion_8bit": OptimizerMemory(0, paged=EIGHT_BIT),
    "rmsprop": OptimizerMemory(4, step=4),
    "rmsprop_bnb": OptimizerMemory(4),
    "rmsprop_bnb_8bit": OptimizerMemory(EIGHT_BIT),
    "rmsprop_bnb_32bit": OptimizerMemory(4),
    "adagrad": OptimizerMemory(4, step=4),
    "sgd": OptimizerMemory(0),
    # A row and a column of squares instead of a matrix; the update of one matrix at a time, and what it was made of.
    "adafactor": OptimizerMemory(0, copies=2),
}
#: What an optimizer is taken for that is not in the table, which a plan tells: Adam's two float32 moments.
UNKNOWN = OptimizerMemory(8, step=4)

#: bitsandbytes' 8-bit optimizers keep 32-bit states for embeddings: transformers' Trainer asks for it.
WIDER_FOR_EMBEDDINGS = 4 / EIGHT_BIT
#: bitsandbytes' paged optimizers have the states of smaller tensors on the device (`get_state_buffer`): of all matrices
#: of an adapter of rank 16 on an 8B shape but those on the MLP's width.
FEWEST_PAGED = 100_000


def state_bytes(
    name: str, num_trained: int, num_embeddings: int, *, num_in_small: int = 0
) -> tuple[float, float]:  # fmt: skip
    """Bytes of an optimizer's states on the device, and of those that are paged.

    Args:
        num_embeddings: of the trained parameters, those of `nn.Embedding` modules.
        num_in_small: of the trained parameters, those in tensors of fewer than FEWEST_PAGED.
    """
    memory = optimizer_memory(name)
    is_8bit = is_counted(name) and "8bit" in name
    widened = num_embeddings * (WIDER_FOR_EMBEDDINGS - 1) if is_8bit else 0.0
    paged = (num_trained + widened - num_in_small) * memory.paged
    return (num_trained + widened) * memory.state + num_in_small * memory.paged, paged


def workspace_bytes(name: str, num_trained: int, *, num_in_largest: int, width: int) -> float:
    """Bytes that a step takes besides.

    Args:
        num_in_largest: of the trained parameters, those of the largest tensor.
        width: bytes of a trained parameter.
    """
    memory = optimizer_memory(name)
    copies = memory.copies + (2 if memory.copies and width < 4 else 0)
    return num_trained * memory.step + copies * num_in_largest * 4


def is_counted(name: str) -> bool:
    """Whether it is known what an optimizer takes, by its name in `optim`; others are planned as UNKNOWN."""
    return name in OPTIMIZERS


def optimizer_memory(name: str) -> OptimizerMemory:
    """What an optimizer takes, by its name in `optim`."""
    return OPTIMIZERS.get(name, UNKNOWN)

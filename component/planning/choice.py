"""What may be chosen of a run's settings, and what was: layouts of a step, candidates with their plans, a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from component.planning.gpus import CONTEXT_BYTES
from component.planning.memory import MemoryPlan
from component.planning.step_time import StepTime
from component.planning.workload import Workload

#: Share of a card's memory that a choice leaves free: the planner's error, and what the driver and others take.
MEMORY_MARGIN = 0.05


@dataclass(frozen=True)
class Layout:
    """One way to lay the samples of an optimizer step into rows and micro-batches.

    Attributes:
        workload: its largest micro-batch, as the config asks for the rest.
        timed: its mean micro-batch.
        micro_batches: that make a step.
        samples_share: of an epoch that one step learns from, which compares packed rows with padded ones.
    """

    workload: Workload
    timed: Workload
    micro_batches: int
    samples_share: float = 1.0


@dataclass(frozen=True)
class Freedom:
    """What may be chosen beside the layout.

    Attributes:
        chooses_recomputation: how many layers recompute; else as in the layout's workload.
        skipped_layers: how many keep their activations where others recompute; None for any number of them.
        dequantized: values that dequantizing the base may have.
        optimizers: that may be taken, of those that are alike the first; empty for the workload's own.
        places: whether the input embeddings are in main memory, and whether the output head is, for each way that is
            open, in the order in which they are preferred: see `WORTH_MOVING`. Empty for the workload's own.
    """

    chooses_recomputation: bool = True
    skipped_layers: int | None = None
    dequantized: tuple[bool, ...] = (False,)
    optimizers: tuple[str, ...] = ()
    places: tuple[tuple[bool, bool], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """Settings and what they are predicted to take; `cost` is seconds for each share of the samples of an epoch."""

    workload: Workload
    micro_batches: int
    memory: MemoryPlan
    time: StepTime | None
    cost: float | None

    def settings(self) -> dict[str, Any]:
        """The settings by their keys in a config."""
        work = self.workload
        return {
            "packing": work.is_packed,
            "per_device_train_batch_size": work.rows,
            "gradient_accumulation_steps": self.micro_batches,
            "gradient_checkpointing": work.checkpointing != "none",
            "checkpoint_skip_layers": work.skipped_layers,
            "dequantize_base": work.is_dequantized,
            "optim": work.optimizer,
            "offload_embedding": work.offloads_embedding,
            "offload_head": work.offloads_head,
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json."""
        return {
            "settings": self.settings(),
            "peak_reserved_bytes": round(self.memory.reserved),
            "step_seconds": round(self.time.seconds, 4) if self.time else None,
            "tokens_per_second": round(self.time.tokens_per_second, 1) if self.time else None,
        }


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        room: bytes that the choice had to fit in.
        alternatives: the best of other layouts and bases that fit, with the same in main memory, the
            fastest first.
        rejected: the fastest that do not fit.
    """

    chosen: Candidate
    room: float
    alternatives: tuple[Candidate, ...]
    rejected: tuple[Candidate, ...]

    @property
    def fits(self) -> bool:
        """False where nothing does; then `chosen` is what takes least."""
        return self.chosen.memory.reserved <= self.room

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json."""
        rejected = [
            {**item.to_dict(), "rejected": f"{_gib(item.memory.reserved)} GiB of {_gib(self.room)}"}
            for item in self.rejected
        ]
        return {
            "predicted": self.chosen.to_dict(),
            "fits": self.fits,
            "room_bytes": round(self.room),
            "margin": MEMORY_MARGIN,
            "alternatives": [item.to_dict() for item in self.alternatives],
            "rejected": rejected,
        }


def room_on(memory_bytes: float, *, has_context: bool = True) -> float:
    """Bytes that a choice may reserve on a device of this memory.

    Args:
        has_context: what CUDA takes for itself comes out of it.
    """
    return memory_bytes * (1 - MEMORY_MARGIN) - (CONTEXT_BYTES if has_context else 0.0)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"

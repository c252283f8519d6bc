"""The plan of a run: memory, time, whether it fits a card, and what would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from component.config.load import Config
from component.planning.choice import MEMORY_MARGIN, room_on
from component.planning.gpus import CONTEXT_BYTES, GIB, Gpu
from component.planning.memory import MemoryPlan, plan_memory
from component.planning.read_config import recomputation
from component.planning.step_time import StepTime, plan_step_time
from component.planning.workload import Workload

Verdict = Literal["fits", "tight", "does not fit"]
#: Above what is allocated at the peak, the share without which torch finds no block although it gives cached ones back.
LEAST_ROOM = 0.02
#: What `judge` says, for people.
VERDICT_RULE = (
    f"fits: reserved and CUDA's {CONTEXT_BYTES / GIB:.2f} GiB leave {MEMORY_MARGIN:.0%} of the card free; tight: less "
    f"is left, or only allocated and {LEAST_ROOM:.0%} have room: it may run out of memory"
)
#: How far to trust its speeds, for people.
SPEED_RULE = "speeds: as an H200 was measured; those of other cards follow from their datasheets"


@dataclass(frozen=True)
class Plan:
    """A prediction.

    Attributes:
        gpu: the card, None where none is known: then time and verdict are unknown too.
        micro_batches: in an optimizer step.
        verdict: by `judge`.
        hours: of the whole run, where its steps are known.
        timed: the mean micro-batch, where it is known and smaller than the largest.
    """

    workload: Workload
    memory: MemoryPlan
    gpu: Gpu | None
    micro_batches: int
    time: StepTime | None
    verdict: Verdict | None
    num_steps: int | None = None
    timed: Workload | None = None

    @property
    def hours(self) -> float | None:
        """Of the whole run; None where its speed or length is not known."""
        if self.time is None or self.num_steps is None:
            return None
        return self.time.seconds * self.num_steps / 3600

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json."""
        time = self.time
        return {
            "gpu": self.gpu.title if self.gpu else None,
            "peak_allocated_bytes": round(self.memory.allocated),
            "peak_reserved_bytes": round(self.memory.reserved),
            "paged_bytes": round(self.memory.paged),
            "peak_moment": self.memory.moment,
            "parts_bytes": {part.name: round(part.num_bytes) for part in self.memory.parts},
            "verdict": self.verdict,
            "step_seconds": round(time.seconds, 4) if time else None,
            "tokens_per_second": round(time.tokens_per_second, 1) if time else None,
            "hours": round(self.hours, 3) if self.hours is not None else None,
        }


@dataclass(frozen=True)
class Alternative:
    """Settings that fit a card.

    Attributes:
        overrides: KEY=VALUE to write; empty where the config fits as it is.
        reserved: bytes at the peak.
    """

    gpu: Gpu
    overrides: Mapping[str, Any]
    reserved: float
    tokens_per_second: float | None


def plan(
    workload: Workload,
    gpu: Gpu | None,
    *,
    micro_batches: int,
    timed: Workload | None = None,
    num_steps: int | None = None,
) -> Plan:
    """Predict memory and time.

    Args:
        workload: the largest micro-batch.
        micro_batches: that make one optimizer step.
        timed: the mean micro-batch, where it is known and smaller.
        num_steps: optimizer steps of the run, where they are known.
    """
    memory = plan_memory(workload)
    time = plan_step_time(timed or workload, gpu, micro_batches=micro_batches) if gpu else None
    verdict = judge(memory, gpu) if gpu else None
    return Plan(workload, memory, gpu, micro_batches, time, verdict, num_steps, timed)


def judge(memory: MemoryPlan, gpu: Gpu) -> Verdict:
    """Whether a peak fits a card beside what the process takes before torch allocates anything.

    It fits where what is reserved leaves the margin that a choice leaves. It is tight where it does not, and torch can
    still find blocks for what is allocated, having given cached ones back.
    """
    if memory.reserved <= room_on(gpu.memory_bytes):
        return "fits"
    least = min(memory.reserved, memory.allocated * (1 + LEAST_ROOM))
    return "tight" if least <= gpu.memory_bytes - CONTEXT_BYTES else "does not fit"


def find_alternative(
    workload: Workload, gpu: Gpu, *, config: Config, micro_batches: int, unsloth: Workload | None = None
) -> Alternative | None:
    """The settings nearest to the config's that fit a card, of those the fastest; None where none does.

    The rows of an optimizer step stay as many. What changes least comes first: recomputation and micro-batches change
    nothing that is learned; another loader, an 8-bit optimizer, quantization and shorter rows do.

    Args:
        unsloth: the workload with Unsloth, where it is another and may be used.
    """
    best: tuple[tuple[int, float], Alternative] | None = None
    rows = workload.rows * micro_batches
    for cost, candidate, overrides in _candidates(workload, unsloth, config, rows):
        memory = plan_memory(candidate)
        if judge(memory, gpu) != "fits":
            continue
        time = plan_step_time(candidate, gpu, micro_batches=rows // candidate.rows)
        seconds = time.seconds if time else -candidate.rows
        found = Alternative(gpu, overrides, memory.reserved, time.tokens_per_second if time else None)
        if best is None or (cost, seconds) < best[0]:
            best = (cost, seconds), found
    return best[1] if best else None


def _candidates(
    workload: Workload, unsloth: Workload | None, config: Config, rows: int
) -> Iterator[tuple[int, Workload, dict[str, Any]]]:
    """Every combination of changes, with what it costs in what is learned and the overrides that make it."""
    yield from _combinations(workload, config, rows)
    if unsloth is not None:
        for cost, changed, overrides in _combinations(unsloth, config, rows):
            yield cost + UNSLOTH_PRICE, changed, {"use_unsloth": "true", **overrides}


def _combinations(
    workload: Workload, config: Config, rows: int
) -> Iterator[tuple[int, Workload, dict[str, Any]]]:  # fmt: skip
    """Those of one loader."""
    dimensions = (
        _modes(workload), _optimizers(workload), _lengths(workload), _bases(workload), _checkpoints(workload, config),
        _micro_batches(workload, rows),
    )  # fmt: skip
    for choice in product(*dimensions):
        changed, overrides, cost = workload, {}, 0
        for price, fields, written in choice:
            changed, cost = replace(changed, **fields), cost + price
            overrides |= written
        yield cost, changed, overrides


#: A change: its price in what is learned, fields of the workload, and overrides.
Change = tuple[int, dict[str, Any], dict[str, Any]]
_KEEP: Change = (0, {}, {})
#: Price of another loader.
UNSLOTH_PRICE = 1


def _modes(workload: Workload) -> Sequence[Change]:
    if workload.adapter is None or workload.quantization is not None:
        return (_KEEP,)
    return _KEEP, (4, {"quantization": "nf4"}, {"train_mode": "qlora"})


def _optimizers(workload: Workload) -> Sequence[Change]:
    smaller = "paged_adamw_8bit"
    if workload.adapter is not None or "8bit" in workload.optimizer or workload.optimizer in ("sgd", "adafactor"):
        return (_KEEP,)
    return _KEEP, (2, {"optimizer": smaller}, {"optim": smaller})


def _lengths(workload: Workload) -> Sequence[Change]:
    shorter = [workload.row_tokens // 2**halvings for halvings in (1, 2)]
    changes = [(8 * (place + 1), {"row_tokens": size}, {"max_seq_length": size}) for place, size in enumerate(shorter)]
    return _KEEP, *(change for change in changes if change[1]["row_tokens"] >= 512)


def _bases(workload: Workload) -> Sequence[Change]:
    if not workload.is_dequantized:
        return (_KEEP,)
    return _KEEP, (0, {"is_dequantized": False}, {"dequantize_base": "false"})


def _checkpoints(workload: Workload, config: Config) -> Sequence[Change]:
    if workload.skipped_layers:
        return _KEEP, (0, {"skipped_layers": 0}, {"checkpoint_skip_layers": 0})
    if workload.checkpointing != "none":
        return (_KEEP,)
    fields = {"checkpointing": recomputation(config, workload.loader)}
    return _KEEP, (0, fields, {"gradient_checkpointing": "true"})


def _micro_batches(workload: Workload, rows: int) -> Sequence[Change]:
    sizes = [workload.rows // 2**halvings for halvings in range(1, 1 + int(math.log2(workload.rows)))]
    return _KEEP, *(
        (
            0,
            {"rows": size, "gradients_wait": True, "eval_rows": min(size, workload.eval_rows)},
            {"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // size},
        )
        for size in sizes
        if rows % size == 0
    )

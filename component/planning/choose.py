"""The fastest settings that fit a card, of those that leave what is learned alone.

Micro-batch, packed or padded rows, recomputation of all, some or none of the layers, a base that is dequantized once,
one of several implementations of the optimizer: each combination that the config leaves open is planned, and what does
not fit is left out. With the input embeddings in main memory, and the output head as well, they are planned once more,
for cards that are small.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from component.planning.choice import Candidate, Choice, Freedom, Layout
from component.planning.gpus import Gpu
from component.planning.memory import plan_memory
from component.planning.step_time import plan_step_time

#: Settings whose times differ by less are alike: that is far below what the planner can tell apart.
ALIKE = 0.005
#: Embeddings and head leave the device for settings that take less than this share of the time, the way from main
#: memory included, or where nothing else fits.
WORTH_MOVING = 0.95
#: Tokens of a micro-batch from which on the card's arithmetic is at its best: of settings that are alike, those with
#: more come first up to here (2048 x 8 is 1 to 3 % faster than 2048 x 4, with 16-bit weights too).
SATURATING_TOKENS = 16_384
#: Alternatives that are kept of those that fit, and of those that do not.
NUM_SHOWN = 4


def choose(layouts: Sequence[Layout], freedom: Freedom, gpu: Gpu | None, *, room: float) -> Choice:
    """Choose the fastest settings whose predicted peak of reserved memory has room.

    Padded rows are chosen only where no packed ones fit. Of settings that are alike in time, what changes least comes
    first, then micro-batches up to `SATURATING_TOKENS`, then the first optimizer, then what takes least. Without a
    known speed it is by memory alone: see `_rank`.

    Args:
        gpu: tells the speed; None where there is none to tell.
        room: bytes; see `room_on`.
    """
    choices = [_choose_among(some, freedom, gpu, room) for some in _placed(layouts, freedom)]
    best = reduce(lambda stays, moved: moved if _is_worth_moving(moved, stays) else stays, choices)
    rejected = [item for choice in choices for item in choice.rejected]
    return replace(best, rejected=tuple(sorted(rejected, key=_rank)[:NUM_SHOWN]))


def _is_worth_moving(moved: Choice, stays: Choice) -> bool:
    """Whether more goes to main memory: for settings that fit, for packed rows, or for clearly less time.

    Where nothing fits at all, it goes there where that takes less.
    """
    if not stays.fits:
        return moved.fits or moved.chosen.memory.reserved < stays.chosen.memory.reserved
    if not moved.fits:
        return False
    if moved.chosen.workload.is_packed != stays.chosen.workload.is_packed:
        return moved.chosen.workload.is_packed
    before, after = stays.chosen.cost, moved.chosen.cost
    return before is not None and after is not None and after < WORTH_MOVING * before


def _placed(layouts: Sequence[Layout], freedom: Freedom) -> Iterator[Sequence[Layout]]:
    """The layouts with input embeddings and output head where they may be, the first place first."""
    if not freedom.places:
        yield layouts
    for embedding, head in freedom.places:
        moved = {"offloads_embedding": embedding, "offloads_head": head}
        yield [
            replace(layout, workload=replace(layout.workload, **moved), timed=replace(layout.timed, **moved))
            for layout in layouts
        ]


def _choose_among(layouts: Sequence[Layout], freedom: Freedom, gpu: Gpu | None, room: float) -> Choice:
    fitting: list[Candidate] = []
    others: list[Candidate] = []
    for group in _groups(layouts, freedom, gpu):
        fits = group.most_kept(room)
        if fits is not None:
            fitting.append(fits)
        whole = group.candidate(group.all_kept)
        others += [whole] if fits is None or whole.memory.reserved > room else []
        if fits is None:
            others.append(group.candidate(group.least_kept))
    rejected = tuple(sorted((item for item in others if item.memory.reserved > room), key=_rank)[:NUM_SHOWN])
    if not fitting:
        return Choice(min(others, key=lambda item: item.memory.reserved), room, (), rejected)
    # A full row holds more samples than a padded one: the card may not decide lightly what a step learns from.
    best = _best([item for item in fitting if item.workload.is_packed] or fitting, freedom.optimizers)
    rest = sorted((item for item in fitting if item is not best), key=_rank)
    return Choice(best, room, tuple(rest[:NUM_SHOWN]), rejected)


@dataclass(frozen=True)
class _Group:
    """One layout with one kind of base and optimizer, for which only recomputation is left to choose."""

    layout: Layout
    freedom: Freedom
    gpu: Gpu | None
    is_dequantized: bool
    optimizer: str

    @property
    def all_kept(self) -> int | None:
        """Layers that keep their activations, at most; None where nothing is to be chosen."""
        return self.layout.workload.shape.num_layers if self.freedom.chooses_recomputation else None

    @property
    def least_kept(self) -> int | None:
        """The least of these."""
        return self._counts[0] if self.freedom.chooses_recomputation else None

    def most_kept(self, room: float) -> Candidate | None:
        """The candidate that recomputes least of those that have room, which is the fastest of the group."""
        whole = self.candidate(self.all_kept)
        if whole.memory.reserved <= room:
            return whole
        if self.all_kept is None:
            return None
        counts = self._counts
        number = bisect_right(counts, room, key=lambda count: self.candidate(count).memory.reserved)
        return self.candidate(counts[number - 1]) if number else None

    @property
    def _counts(self) -> range:
        """Layers that may keep their activations where others recompute."""
        fixed, work = self.freedom.skipped_layers, self.layout.workload
        if fixed is None and work.trained_layers is not None:
            fixed = 0  # which of the layers that are trained would be among the skipped ones is not known
        return range(work.shape.num_layers) if fixed is None else range(fixed, fixed + 1)

    def candidate(self, kept: int | None) -> Candidate:
        """The plan for a number of layers that keep their activations."""
        changes: dict[str, Any] = {"is_dequantized": self.is_dequantized, "optimizer": self.optimizer}
        if kept is not None and kept == self.all_kept:
            changes |= {"checkpointing": "none", "skipped_layers": 0}
        elif kept is not None:
            changes |= {"skipped_layers": kept}
        layout = self.layout
        workload, timed = replace(layout.workload, **changes), replace(layout.timed, **changes)
        number = layout.micro_batches
        time = plan_step_time(timed, self.gpu, micro_batches=number) if self.gpu else None
        cost = time.seconds / layout.samples_share if time else None
        return Candidate(workload, number, plan_memory(workload), time, cost)


def _groups(layouts: Sequence[Layout], freedom: Freedom, gpu: Gpu | None) -> Iterator[_Group]:
    for layout in layouts:
        for optimizer in freedom.optimizers or (layout.workload.optimizer,):
            for value in freedom.dequantized:
                yield _Group(layout, freedom, gpu, value, optimizer)


def _best(fitting: Sequence[Candidate], optimizers: Sequence[str]) -> Candidate:
    first = min(fitting, key=_rank)
    if first.cost is None:
        return first
    alike = [item for item in fitting if item.cost is not None and item.cost <= first.cost * (1 + ALIKE)]
    return min(
        alike,
        key=lambda item: (
            _num_changes(item),
            -min(item.workload.tokens, SATURATING_TOKENS),
            optimizers.index(item.workload.optimizer) if optimizers else 0,
            item.memory.reserved,
        ),
    )


def _rank(item: Candidate) -> tuple[float, ...]:
    """The fastest first; without a known speed what is least work: a dequantized base, then less recomputation.

    Of the same work, fewer and larger micro-batches come first.
    """
    if item.cost is not None:
        return (item.cost,)
    work = item.workload
    return (not work.is_dequantized, work.recomputed_layers, -work.rows)


def _num_changes(item: Candidate) -> int:
    """Departures from how a run is usually set: recomputing some layers and not others, a dequantized base."""
    return (item.workload.skipped_layers > 0) + item.workload.is_dequantized

"""Why a run was not faster: what was measured of it, and what the planner says of other settings, as a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Shares of the time below which nothing is said, and lines at most.
LEAST_GAIN, MAX_LINES = 0.05, 3
#: Of the time, what fused kernels for adapters save. An assumption: it ranks, and is not told as a number.
FUSED_GAIN = 0.1
#: Packed rows of one 8B shape on an H200 took 7,498 tokens/s with a call for each sample, 10,783 with a variable-length
#: kernel. Other lengths gain otherwise: it ranks, and is not told as a number.
VARLEN_GAIN = 0.3


@dataclass(frozen=True)
class Finding:
    """Something that took time, and the override to try.

    Attributes:
        gain: share of the time that it would save, from 0 to 1; it decides the order.
        what: was seen.
        fix: overrides as they are written on the command line, or what to do.
        is_estimated: whether `gain` was measured or planned for this run, so that it may be told.
        is_most: whether it is a bound: what was measured is a share of tokens or of waiting, of which a part may stay.
        extra_bytes: that it takes on the device.
    """

    gain: float
    what: str
    fix: str
    is_estimated: bool = True
    is_most: bool = False
    extra_bytes: float = 0.0

    def __str__(self) -> str:
        size = "at most" if self.is_most else "about"
        gain = f" (saves {size} {self.gain:.0%} of the time)" if self.is_estimated else ""
        return f"{self.what}: try {self.fix}{gain}"


@dataclass(frozen=True)
class SpeedFacts:
    """What is known of a finished run; None where it was not measured or does not apply.

    Attributes:
        on_gpu: without one only data and padding count.
        padding_share: of all tokens.
        may_pack: packing is off and would work; may_group: rows are not grouped by length and could be.
        data_wait_share: of the time in which the loop waited for batches.
        num_workers: processes that build batches.
        evaluation_share: of the time of training, in `num_evaluations`, one every `eval_steps` steps where it is set.
        lost_kernels: settings without which Unsloth's fused kernels for adapters would run, as overrides.
        slow_attention: how rows attended, in words, where that is a slow way, and attention_fix: what to do.
        planned: other settings that the planner finds faster.
        room_bytes: of the device that nothing took at the peak.
    """

    on_gpu: bool
    padding_share: float | None = None
    may_pack: bool = False
    may_group: bool = False
    data_wait_share: float | None = None
    num_workers: int = 0
    evaluation_share: float | None = None
    num_evaluations: int = 0
    eval_steps: float | None = None
    lost_kernels: tuple[str, ...] = ()
    slow_attention: str | None = None
    attention_fix: str = ""
    planned: tuple[Finding, ...] = ()
    room_bytes: float = 0.0


def why_not_faster(facts: SpeedFacts) -> tuple[str, ...]:
    """At most three lines, that which would save most first; none where nothing is worth saying."""
    finders = (*ANYWHERE, *(ON_A_GPU if facts.on_gpu else ()))
    findings = [finding for find in finders for finding in find(facts) if finding.gain >= LEAST_GAIN]
    return tuple(str(finding) for finding in _that_fit(findings, facts.room_bytes)[:MAX_LINES])


def _that_fit(findings: Sequence[Finding], room_bytes: float) -> list[Finding]:
    """In the order of their gains, those that fit together: what is told first has taken its memory."""
    fitting = []
    for finding in sorted(findings, key=lambda finding: -finding.gain):
        if finding.extra_bytes <= 0 or finding.extra_bytes <= room_bytes:
            room_bytes -= max(finding.extra_bytes, 0.0)
            fitting.append(finding)
    return fitting


def find_padding(facts: SpeedFacts) -> Iterator[Finding]:
    """Tokens that nobody learns from; where the host is slower than the card, fewer of them take as long.

    Grouping leaves the samples of a step as many, so it comes first.
    """
    ways = (("group_by_length=true", facts.may_group), ("packing=true", facts.may_pack))
    fix = " or ".join(override for override, is_open in ways if is_open)
    if facts.padding_share is not None and fix:
        yield Finding(facts.padding_share, f"{facts.padding_share:.0%} of all tokens were padding", fix, is_most=True)


def find_data_wait(facts: SpeedFacts) -> Iterator[Finding]:
    """A loop that waits for its batches."""
    if facts.data_wait_share is None:
        return
    what = f"training waited for data {facts.data_wait_share:.0%} of the time"
    fix = f"dataloader_num_workers={max(2, 2 * facts.num_workers)}"
    yield Finding(facts.data_wait_share, what, fix, is_most=True)


def find_evaluation(facts: SpeedFacts) -> Iterator[Finding]:
    """Evaluations so frequent that they take a share of the run; half of them is what can be saved."""
    if facts.evaluation_share is None or facts.num_evaluations < 2:
        return
    what = f"{facts.num_evaluations} evaluations took {facts.evaluation_share:.0%} of the time"
    fix = f"eval_steps={2 * facts.eval_steps:g}" if facts.eval_steps else "a larger per_device_eval_batch_size"
    gain = facts.evaluation_share / 2
    yield Finding(gain, what, fix, is_estimated=bool(facts.eval_steps))


def find_lost_kernels(facts: SpeedFacts) -> Iterator[Finding]:
    """Settings that Unsloth's fused kernels do not know."""
    if facts.lost_kernels:
        fix = " ".join(facts.lost_kernels)
        yield Finding(FUSED_GAIN, "Unsloth's fused kernels for adapters were lost", fix, is_estimated=False)


def find_slow_attention(facts: SpeedFacts) -> Iterator[Finding]:
    """Packed rows without a variable-length kernel, scores that are written out."""
    if facts.slow_attention is not None and facts.attention_fix:
        yield Finding(VARLEN_GAIN, facts.slow_attention, facts.attention_fix, is_estimated=False)


def find_planned(facts: SpeedFacts) -> Iterator[Finding]:
    """Settings that the planner finds faster."""
    yield from facts.planned


Finder = Callable[[SpeedFacts], Iterator[Finding]]
ANYWHERE: tuple[Finder, ...] = (find_padding, find_data_wait)
ON_A_GPU: tuple[Finder, ...] = (find_evaluation, find_lost_kernels, find_slow_attention, find_planned)

"""The cards that open and close a run on the terminal: what will run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from component.artifacts.terminal import legend, mark_supervised, name_value_table, render_blocks
from component.runtime.hardware import Hardware

MAX_PIECE_LENGTH = 400


@dataclass(frozen=True)
class StartFacts:
    """What the start card shows.

    Attributes:
        loader_asked, loader_got: names of loaders; loader_reason says why they differ.
        num_parameters: of the model, adapter included; quantized weights count as what they stand for.
        data: lines of the data report.
        num_steps: optimizer steps in all; first_step is where a resumed run goes on.
        global_batch_size: rows in an optimizer step.
        sample: the first sample as pieces of text, each supervised or not; sample_source is its file:line.
        notices: what was changed or ignored.
        hints: choices that work and are seldom meant.
    """

    hardware: Hardware
    model: str
    task: str
    mode: str
    loader_asked: str
    loader_got: str
    loader_reason: str
    attention: str
    dtype: str
    num_trainable: int
    num_parameters: int
    data: tuple[str, ...]
    num_steps: int
    first_step: int
    global_batch_size: int
    sample: tuple[tuple[str, bool], ...] = ()
    sample_source: str = ""
    notices: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndFacts:
    """What the end card shows; None where a value was not measured.

    Attributes:
        first_loss, last_loss: of training, in nats per supervised token; the last one of the weights that are saved, as
            is the loss of the evaluation.
        eval_perplexity: of tasks whose loss is that of the next token.
        last_step: the last one that was done, of planned_steps; model_step is that of the weights that are saved.
        real_tokens_per_second: without padding; padded_tokens_per_second counts padding too.
        mfu: model FLOPs utilization from 0 to 1, None for a CPU or a GPU whose peak is unknown.
        loss_unit: empty where a loss is no mean of cross-entropies.
        task_metrics: what says more of a task than its loss -> its first and its last logged value.
        start_seconds: from the command to the end of the first step, by its parts.
        why_not_faster: what took time, each with an override to try.
        next_commands: ready to paste.
    """

    hardware: Hardware
    first_loss: float | None
    last_loss: float | None
    eval_loss: float | None
    real_tokens_per_second: float | None
    padded_tokens_per_second: float | None
    mfu: float | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    wall_seconds: float
    last_step: int
    planned_steps: int
    model_step: int
    eval_perplexity: float | None = None
    loss_unit: str = "nats per supervised token"
    task_metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    start_seconds: Mapping[str, float] = field(default_factory=dict)
    why_not_faster: tuple[str, ...] = ()
    next_commands: tuple[str, ...] = ()


def start_card(facts: StartFacts, *, color: bool, width: int = 100) -> str:
    """Text of the card that is shown before the first step.

    Args:
        color: the text goes to a terminal; else it has no control sequences.
        width: of the terminal in characters.
    """
    hardware = facts.hardware
    memory = f"{gibibytes(hardware.free_memory_bytes)} free of {gibibytes(hardware.total_memory_bytes)}"
    share = facts.num_trainable / facts.num_parameters
    loader = facts.loader_got
    if facts.loader_got != facts.loader_asked:
        loader += f" (asked for {facts.loader_asked}: {facts.loader_reason})"
    steps = f"{facts.num_steps:,}, each of {facts.global_batch_size:,} rows"
    if facts.first_step:
        steps += f", going on after step {facts.first_step:,}"
    rows = [
        ("GPU" if hardware.kind == "cuda" else hardware.kind.upper(), f"{hardware.name}, {memory}"),
        ("model", facts.model),
        ("training", f"{facts.task}, {facts.mode}"),
        ("loader", loader),
        ("attention", f"{facts.attention}, {facts.dtype}"),
        (
            "parameters",
            f"{short_count(facts.num_trainable)} trainable of {short_count(facts.num_parameters)} ({share:.2%})",
        ),
        ("data", "\n".join(facts.data)),
        ("steps", steps),
    ]
    if facts.notices:
        rows.append(("notices", "\n".join(facts.notices)))
    if facts.hints:
        rows.append(("hints", "\n".join(facts.hints)))
    blocks = [name_value_table(rows)]
    if facts.sample:
        title = f"\nfirst sample, {facts.sample_source} ({legend(color=color)}):"
        blocks += [title, mark_supervised(facts.sample, color=color, max_piece_length=MAX_PIECE_LENGTH)]
    return render_blocks(blocks, color=color, width=width)


def end_card(facts: EndFacts, *, color: bool, width: int = 100) -> str:
    """Text of the card that is shown when a run has finished.

    Args:
        color: the text goes to a terminal; else it has no control sequences.
        width: of the terminal in characters; the commands are never wrapped.
    """
    rows = [
        ("loss", f"{_number(facts.first_loss, '.4f')} -> {_number(facts.last_loss, '.4f')} {facts.loss_unit}".rstrip())
    ]
    rows += [(name, f"{first:.3f} -> {last:.3f}") for name, (first, last) in facts.task_metrics.items()]
    if facts.eval_loss is not None:
        perplexity = "" if facts.eval_perplexity is None else f", perplexity {_perplexity(facts.eval_perplexity)}"
        rows.append(("eval loss", f"{facts.eval_loss:.4f}{perplexity}"))
    rows += _ending(facts)
    real, padded = _number(facts.real_tokens_per_second, ",.0f"), _number(facts.padded_tokens_per_second, ",.0f")
    rows.append(("tokens/s", f"{real} real, {padded} with padding"))
    rows.append(("MFU", _mfu(facts)))
    if facts.peak_allocated_bytes is not None:
        reserved = f", {gibibytes(facts.peak_reserved_bytes)} reserved" if facts.peak_reserved_bytes is not None else ""
        rows.append(("peak memory", f"{gibibytes(facts.peak_allocated_bytes)} allocated{reserved}"))
    if facts.start_seconds:
        parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in facts.start_seconds.items())
        rows.append(("first step", f"after {duration(sum(facts.start_seconds.values()))}: {parts}"))
    rows.append(("wall time", duration(facts.wall_seconds)))
    card = render_blocks([name_value_table(rows)], color=color, width=width)
    return card + _block("why not faster", facts.why_not_faster) + _block("next", facts.next_commands)


def _block(title: str, lines: Sequence[str]) -> str:
    """Lines that are never wrapped, below a title; nothing without lines."""
    return f"\n{title}:\n" + "".join(f"  {line}\n" for line in lines) if lines else ""


def gibibytes(size: int) -> str:
    """A number of bytes in GiB, with one decimal."""
    return f"{size / 2**30:.1f} GiB"


def short_count(number: int) -> str:
    """A count with three digits and its unit: 999, 41.9 M, 8.03 B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        # 999,950 rounds to 1.00 M, not to 1000 K.
        if number >= size * 0.9995:
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return str(number)


def duration(seconds: float) -> str:
    """Seconds as 3.2 s, 4 min 05 s or 2 h 03 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _ending(facts: EndFacts) -> list[tuple[str, str]]:
    """Where training ended and what is saved, unless that is the last step of all."""
    parts = []
    if facts.last_step < facts.planned_steps:
        parts.append(f"stopped early after {facts.last_step:,} of {facts.planned_steps:,}")
    if facts.model_step < facts.last_step:
        parts.append(f"saved, and shown here, is the best: that of step {facts.model_step:,}")
    return [("steps", "; ".join(parts))] if parts else []


def _mfu(facts: EndFacts) -> str:
    if facts.mfu is not None:
        return f"{facts.mfu:.1%}"
    return f"unknown GPU ({facts.hardware.name})" if facts.hardware.kind == "cuda" else "not defined without a GPU"


def _perplexity(value: float) -> str:
    return f"{value:,.2f}" if value < 1e6 else f"{value:.2e}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)

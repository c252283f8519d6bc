"""Suite `memory`: the least memory in which models of 1B to 70B train, and the longest context that fits a card."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from component.artifacts.benchmark_picture import Bars, draw_bars
from component.pipeline.benchmark.case import Case
from component.pipeline.benchmark.checkpoint import is_complete
from component.pipeline.benchmark.files import Files, log_of, shape_of
from component.pipeline.benchmark.memory_cases import (
    CARDS,
    CONTEXT_TOKENS,
    LENGTH,
    MODES,
    QUICK_KEYS,
    SHAPES,
    build_case,
    context_settings,
    settings_of,
)
from component.pipeline.benchmark.memory_plans import LONGEST, STEP, longest_row, plan_peak
from component.pipeline.benchmark.options import QUICK_MODEL, add_common_options
from component.pipeline.benchmark.suite import Suite, say
from component.pipeline.benchmark.table import Line, render_rows, verdict
from component.pipeline.plan_inputs import own_gpu
from component.planning.choice import MEMORY_MARGIN
from component.planning.memory import MemoryPlan
from component.runtime.command import Distinct, positive_int

SUITE, GIB = "memory", 2**30
#: Disk beyond a checkpoint's weights: its tokenizer, rows, logs.
SPARE = 1.05
PLANNED = "planned"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    add_common_options(parser, SUITE, model=None, replaced_by_quick=("--modes",))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="SIZE")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), metavar="MODE")
    parser.add_argument(
        "--accumulation", type=positive_int, default=2, metavar="N",
        help="micro-batches of a step; with one, no gradients wait while another is computed (default: 2)",
    )  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="run what this card and this disk have room for")
    parser.add_argument(
        "--measure_context", nargs="*", type=int, action=Distinct, default=[], choices=list(CARDS), metavar="GB",
        help="run QLoRA of the 8B shape on the longest row planned for these cards, under a cap of their memory",
    )  # fmt: skip
    parser.add_argument(
        "--context_tokens", type=positive_int, default=CONTEXT_TOKENS, metavar="N",
        help=f"rows of --measure_context are no longer: time grows with the square (default: {CONTEXT_TOKENS})",
    )  # fmt: skip


@dataclass(frozen=True)
class Peak:
    """A model trained in one mode: what is planned, and what was measured."""

    size: str
    mode: str
    planned: MemoryPlan
    line: Line | None

    @property
    def measured_bytes(self) -> float | None:
        """Reserved memory that was measured; None where it was not, or the run did not end well."""
        return self.line.number("peak_reserved_bytes") if self.line else None

    def gib(self) -> float:
        """Reserved memory, measured where it was."""
        return (self.measured_bytes or self.planned.reserved) / GIB

    def cells(self) -> list[str]:
        """A row of the table."""
        planned = [f"{value / GIB:.2f}" for value in (self.planned.allocated, self.planned.reserved)]
        names = ("peak_allocated_bytes", "peak_reserved_bytes")
        if self.line is None:
            measured = [PLANNED, PLANNED]
        elif self.line.is_done:
            measured = [f"{value / GIB:.2f}" if (value := self.line.number(name)) else "-" for name in names]
        else:
            measured = [verdict(self.line), "-"]
        return [self.size, MODES[self.mode][0], *measured, *planned]


def run_suite(options: argparse.Namespace) -> None:
    """Plan everything, measure what is wanted and possible, and write tables and picture."""
    suite = Suite(SUITE, options, uses_scratch=bool(options.quick or options.measure or options.measure_context))
    shapes = {size: SHAPES[size] for size in options.shapes}
    if options.model or options.quick:
        model = options.model or QUICK_MODEL
        shape_of(model)  # tells what is no checkpoint and no shape before anything is planned
        shapes = {Path(model).name: model}
    peaks = [_peak(suite, size, model, mode, options) for size, model in shapes.items() for mode in _modes(options)]
    contexts = {size: plan_contexts(model) for size, model in SHAPES.items() if size in options.shapes}
    ran = measure_contexts(suite, options.measure_context, options.context_tokens)
    suite.results.note("planned", {
        "peaks": [[peak.size, peak.mode, *(round(part) for part in (peak.planned.allocated, peak.planned.reserved))]
                  for peak in peaks],
        "longest_rows": contexts,
    })  # fmt: skip
    titles = ["model", "mode", "peak allocated GiB", "reserved GiB", "planned allocated", "planned reserved"]
    suite.write(
        render_rows(titles, [peak.cells() for peak in peaks]), caption(options.accumulation, quick=options.quick),
        render_rows(["QLoRA, longest row on", *(f"{card} GB" for card in CARDS)], [
            [size, *(f"{tokens:,}" if tokens else "does not fit" for tokens in found.values())]
            for size, found in contexts.items()
        ]), CONTEXT_CAPTION, render_contexts(ran),
    )  # fmt: skip
    draw_bars(panels(peaks, contexts), suite.picture)


def _modes(options: argparse.Namespace) -> list[str]:
    """On a CPU 4-bit layers are slow, and prove nothing here."""
    return [mode for mode in options.modes if not (options.quick and mode == "qlora")]


def _peak(suite: Suite, size: str, model: str, mode: str, options: argparse.Namespace) -> Peak:
    keys = {"gradient_accumulation_steps": options.accumulation, **(QUICK_KEYS if options.quick else {})}
    case = build_case(f"{size}, {MODES[mode][0]}", model, settings_of(model, mode, LENGTH), **keys)
    named = str(suite.files.checkpoint(model)) if options.quick else model
    planned = plan_peak(named, {**settings_of(model, mode, case.settings["max_seq_length"]), **keys})
    if not (options.measure or options.quick):
        return Peak(size, mode, planned, None)
    obstacle = None if options.quick or suite.runs(case) else why_not_measured(suite.files, case, planned)
    if obstacle:
        say(f"{case.name}: {obstacle}; planned")
        return Peak(size, mode, planned, None)
    (line,) = suite.measure([case])
    return Peak(size, mode, planned, line if line.summary else None)


def why_not_measured(files: Files, case: Case, planned: MemoryPlan) -> str | None:
    """Why a case cannot run here; checkpoints that were made for others make room for it.

    Args:
        files: whose disk takes the checkpoint.
    """
    card, shape, folder = own_gpu(), shape_of(case.model), files.folder
    assert shape is not None
    needed = 2 * shape.num_parameters
    if card is None:
        return "there is no NVIDIA GPU"
    if max(planned.allocated, needed) > card.memory_bytes:
        return f"needs {max(planned.allocated, needed) / GIB:.0f} GiB, and the card has {card.memory_bytes / GIB:.0f}"
    name = files.checkpoint_name(case.model)
    is_made = is_complete(folder / "models" / name)
    # Full training ends with another checkpoint.
    on_disk = SPARE * needed * ((0 if is_made else 1) + (case.settings["train_mode"] == "full"))
    folder.mkdir(parents=True, exist_ok=True)
    for made in sorted((folder / "models").glob("*/")):
        if made.name != name and log_of(made).is_file() and shutil.disk_usage(folder).free < on_disk:
            shutil.rmtree(made)
    return None if shutil.disk_usage(folder).free > on_disk else f"needs {on_disk / GIB:.0f} GiB of disk"


def plan_contexts(model: str) -> dict[int, int]:
    """The longest row of QLoRA for each card."""
    settings = context_settings(model, LENGTH)
    return {gigabytes: longest_row(model, settings, card) for gigabytes, (card, _) in CARDS.items()}


def measure_contexts(suite: Suite, cards: Sequence[int], most: int) -> list[Line]:
    """Run the longest planned rows of the 8B shape, each under its card's memory.

    Args:
        most: tokens of a row.
    """
    if not cards:
        return []
    planned = {card: min(tokens, most) for card, tokens in plan_contexts(SHAPES["8B"]).items()}
    return suite.measure([
        build_case(
            f"8B, QLoRA, {planned[card]:,} tokens, {card} GB", SHAPES["8B"],
            context_settings(SHAPES["8B"], planned[card]), max_memory_gib=CARDS[card][1],
        )
        for card in cards if planned[card]
    ])  # fmt: skip


def render_contexts(lines: Sequence[Line]) -> str:
    """What came of the longest rows; nothing where none was run."""
    if not lines:
        return ""
    rows = []
    for line in lines:
        peak, speed = line.number("peak_reserved_bytes"), line.number("real_tokens_per_second")
        shown = [f"{peak / GIB:.2f}" if peak else "-", f"{speed:,.0f}" if speed else "-"]
        rows.append([line.case.name, *(shown if line.is_done else [verdict(line), ""])])
    return render_rows(["longest row, measured", "reserved GiB", "tokens/s"], rows)


def caption(accumulation: int, *, quick: bool = False) -> str:
    """What the first table stands on."""
    if quick:
        return (
            f"One row of {QUICK_KEYS['max_seq_length']} tokens a micro-batch, {accumulation} of them a step, on the "
            f"CPU without Unsloth, with {QUICK_KEYS['optim']}; LoRA of rank 64 on all linear layers. A CPU has no "
            "peaks to measure."
        )
    return (
        f"One row of {LENGTH} tokens a micro-batch, {accumulation} of them a step, "
        "train_args/base/minimal_memory.json; rank 64 on all linear layers; QLoRA and LoRA through Unsloth, "
        "full training without it and with float32 masters. "
        f"'{PLANNED}': not run here, the planner's figures stand beside it."
    )


CONTEXT_CAPTION = (
    f"Tokens of one row that the planner says fit, in steps of {STEP:,} up to {LONGEST:,}: reserved memory leaves "
    f"{MEMORY_MARGIN:.0%} of the card beside what CUDA takes. QLoRA by train_args/base/qlora.json and then "
    "long_context.json, with offload_embedding and offload_head but where they are one matrix (1B, 3B); one row a "
    "micro-batch, 2 of them a step or more."
)


def panels(peaks: Sequence[Peak], contexts: Mapping[str, Mapping[int, int]]) -> list[Bars]:
    """What the picture shows: least memory in each mode, and the longest rows on the smallest and the largest card."""
    shown = []
    for mode, (title, _) in MODES.items():
        own = [peak for peak in peaks if peak.mode == mode]
        values = {peak.size: peak.gib() for peak in own}
        measured = frozenset(peak.size for peak in own if peak.measured_bytes)
        if values:
            shown.append(Bars(f"{title}, least memory", "GiB reserved, planned in blue", values, "{:.1f}", measured))
    for card in (min(CARDS), max(CARDS)):
        rows = {size: float(found[card]) for size, found in contexts.items()}
        shown.append(Bars(f"QLoRA, longest row on {card} GB", "tokens, planned", rows))
    return shown

"""Suite `firefly`: the published table of Firefly x Unsloth over max_seq_length and batch, and tuned settings."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from component.artifacts.benchmark_picture import Curves, draw_curves
from component.pipeline.benchmark.case import BARE_LOOP, TRAIN, Case, Rows
from component.pipeline.benchmark.chat_cases import QUICK_KEYS
from component.pipeline.benchmark.firefly_cases import (
    BASELINE,
    BATCHES,
    FIREFLY,
    LENGTHS,
    PUBLISHED,
    QUICK_BATCHES,
    QUICK_LENGTHS,
    SETUPS,
)
from component.pipeline.benchmark.options import QUICK_MODEL, add_common_options, add_names
from component.pipeline.benchmark.results import DONE, summarize
from component.pipeline.benchmark.results_file import Fields
from component.pipeline.benchmark.suite import Suite
from component.pipeline.benchmark.table import render_rows
from component.runtime.command import Distinct, positive_int

SUITE, MODEL, WARM_UP = "firefly", "llama3 8b", 1
#: Of a size that a bare loop's result lacks.
NOT_MEASURED = {"status": "not run"}
#: max_seq_length and rows of a micro-batch.
Cell = tuple[int, int]
#: Setup -> cell -> median result; a cell that was not run is absent.
Grid = dict[str, dict[Cell, Mapping[str, Any]]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    replaced = ("--setups", "--lengths", "--batches", "--steps", "--accumulation")
    add_common_options(parser, SUITE, model=MODEL, replaced_by_quick=replaced)
    defaults = [name for name, setup in SETUPS.items() if setup.is_default]
    others = [name for name in SETUPS if name not in defaults]
    names = {"by default": defaults, "others": others}
    add_names(parser, "--setups", names, help="what is measured", default=defaults)
    for name, numbers in (("--lengths", LENGTHS), ("--batches", BATCHES)):
        parser.add_argument(name, nargs="+", type=positive_int, action=Distinct, default=list(numbers), metavar="N")
    parser.add_argument("--steps", type=positive_int, default=3, metavar="N", help="timed steps; published: 50")
    parser.add_argument(
        "--accumulation", type=positive_int, default=2, metavar="N", help="micro-batches of a step; published: 16"
    )


def run_suite(options: argparse.Namespace) -> None:
    """Measure each setup on each size, and hold the changes against the published ones."""
    suite, cells = Suite(SUITE, options, fields_of), cells_of(options)
    names = [name for name in SETUPS if name in {BASELINE, *options.setups}]
    if options.quick:
        names = [BASELINE, "Lampyris, Firefly's settings, vanilla"]
    cases = {name: build_cases(name, cells, options) for name in names}
    for name, found in cases.items():
        suite.measure(list(found.values()), share_process=SETUPS[name].program == TRAIN)
    grid: Grid = {name: read_cells(suite, found, cells) for name, found in cases.items()}
    published = "" if options.quick else render_published(grid)
    suite.write(describe(options), render_grid(grid, cells), CAPTION, published)
    draw_curves(curves(grid, cells), suite.picture)


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The sizes, fewest tokens first, so that buffers that a process keeps have not grown for a smaller one."""
    lengths, batches = (QUICK_LENGTHS, QUICK_BATCHES) if options.quick else (options.lengths, options.batches)
    return sorted(
        ((length, batch) for length in lengths for batch in batches), key=lambda cell: (cell[0] * cell[1], cell)
    )


def build_cases(name: str, cells: Sequence[Cell], options: argparse.Namespace) -> dict[Cell | None, Case]:
    """One case for each size, or for all of them, under None, where a bare loop measures them with one model."""
    setup = SETUPS[name]
    steps, accumulation = (1, 1) if options.quick else (options.steps, options.accumulation)
    quick = QUICK_KEYS if options.quick else {}
    settings = {
        **FIREFLY, **quick, **setup.keys, "max_steps": WARM_UP + steps, "logging_steps": WARM_UP,
        "gradient_accumulation_steps": accumulation,
    }  # fmt: skip
    model = QUICK_MODEL if options.quick and options.model == MODEL else options.model
    rows = Rows("full", num_rows=64, max_tokens=max(length for length, _ in cells))

    def build(title: str, cell: Cell, **others: Any) -> Case:
        """A case of one size or more."""
        sizes = {"max_seq_length": cell[0], "per_device_train_batch_size": cell[1]}
        return Case(title, setup.program, {**settings, **sizes, **others}, model, rows, WARM_UP)

    if setup.program == BARE_LOOP:
        return {None: build(name, cells[-1], cells=[list(cell) for cell in cells])}
    return {cell: build(f"{name}, {cell[0]} x {cell[1]}", cell) for cell in cells}


def read_cells(suite: Suite, cases: Mapping[Cell | None, Case], cells: Sequence[Cell]) -> dict[Cell, Mapping[str, Any]]:
    """The median result of each size."""
    found = {}
    for cell in cells:
        if cell in cases:
            summary = summarize(suite.runs(cases[cell]))
        else:
            summary = summarize([_of_cell(run, f"{cell[0]} x {cell[1]}") for run in suite.runs(cases[None])])
        if summary is not None:
            found[cell] = summary
    return found


def _of_cell(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if run["status"] != DONE:
        return run
    found = run["cells"].get(name)
    return found if isinstance(found, dict) and "status" in found else NOT_MEASURED


def fields_of(entry: Mapping[str, Any]) -> Fields:
    """Fields of a run that ended well: a bare loop has one result for each size."""
    return {"cells": dict} if entry["settings"].get("cells") else {}


CAPTION = (
    "Speed and memory: change against Firefly at the same size, speed in tokens per second, memory as the peak that "
    "torch allocates. Every row has max_seq_length real tokens. A process measures all sizes, fewest tokens first."
    " A bare loop has one model for them, train.py one for each."
)


def describe(options: argparse.Namespace) -> str:
    """The settings in words."""
    if options.quick:
        return (
            f"LoRA of rank {QUICK_KEYS['lora_rank']} on all linear layers, without Unsloth, {QUICK_KEYS['optim']}; one "
            f"step of one micro-batch after {WARM_UP} that is not timed."
        )
    return (
        f"{options.model}, Firefly's settings: QLoRA on all linear layers, rank 64, alpha 16, dropout 0.05, fp16, "
        f"paged_adamw_32bit, gradient checkpointing; {options.steps} optimizer steps after {WARM_UP} that is not "
        f"timed, of {options.accumulation} micro-batches (published: 50 of 16; the time of a micro-batch does not "
        "depend on their number). Tuned for speed: through Unsloth, bf16, no dropout, no checkpointing, "
        "dequantized base."
    )


def change(grid: Grid, name: str, cell: Cell, quantity: str) -> float | None:
    """A quantity of a setup over Firefly's at the same size, less one; None where one of them was not measured."""
    mine, base = (grid.get(setup, {}).get(cell, {}).get(quantity) for setup in (name, BASELINE))
    return mine / base - 1 if mine and base else None


SPEED, MEMORY = "real_tokens_per_second", "peak_allocated_bytes"


def render_grid(grid: Grid, cells: Sequence[Cell]) -> str:
    """A row for each size; for each setup its speed and memory, and their changes."""
    titles = ["max_seq_length x batch"]
    for name in grid:
        titles += [f"{name}: tokens/s", "GiB", *(["speed", "memory"] if name != BASELINE else [])]
    return render_rows(titles, [[f"{cell[0]} x {cell[1]}", *_cells_of_row(grid, cell)] for cell in cells])


def _cells_of_row(grid: Grid, cell: Cell) -> list[str]:
    texts = []
    for name, measured in grid.items():
        result = measured.get(cell, {})
        speed, peak = result.get(SPEED), result.get(MEMORY)
        texts.append(f"{speed:,.0f}" if speed else str(result.get("status", "not run")))
        texts.append(f"{peak / 2**30:.2f}" if peak else "-")
        if name != BASELINE:
            texts += [_percent(change(grid, name, cell, quantity)) for quantity in (SPEED, MEMORY)]
    return texts


def render_published(grid: Grid) -> str:
    """The published changes, and ours: the median over the sizes, and the best of them."""
    rows = [
        [
            item.what, _percent(item.speed), _percent(item.time), _percent(item.memory),
            f"{item.least_gb} GB" if item.least_gb else "-",
        ]
        for item in PUBLISHED
    ]  # fmt: skip
    for name, measured in grid.items():
        if name == BASELINE:
            continue
        speeds, memories = (
            [value for cell in measured if (value := change(grid, name, cell, quantity)) is not None]
            for quantity in (SPEED, MEMORY)
        )
        times = [1 / (1 + speed) - 1 for speed in speeds]
        peaks = [result[MEMORY] for result in measured.values() if result.get(MEMORY)]
        rows.append([
            f"here, {name}: median (best)", _median(speeds, max), _median(times, min), _median(memories, min),
            f"{min(peaks) / 1e9:.2f} GB ({min(peaks) / 2**30:.2f} GiB)" if peaks else "-",
        ])  # fmt: skip
    return render_rows(["change against the plain recipe", "speed", "time", "memory", "least memory"], rows)


def _median(values: Sequence[float], best: Any) -> str:
    return f"{_percent(statistics.median(values))} ({_percent(best(values))})" if values else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"


def curves(grid: Grid, cells: Sequence[Cell]) -> list[Curves]:
    """The advantage over length and batch: speed and memory as multiples of Firefly's."""
    panels = []
    for quantity, title in ((SPEED, "speed, times Firefly's"), (MEMORY, "peak memory, times Firefly's")):
        lines = {}
        for name in grid:
            for length in sorted({length for length, _ in cells}):
                points = [
                    (float(batch), 1 + value)
                    for own, batch in sorted(cells)
                    if own == length and (value := change(grid, name, (own, batch), quantity)) is not None
                ]
                if points and name != BASELINE:
                    lines[f"{name}, {length}"] = points
        panels.append(Curves(title, "rows of a micro-batch", title, lines, x_is_log=True))
    return panels

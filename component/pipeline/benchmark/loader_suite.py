"""Suite `loaders`: train.py against the bare loop of each loader with the same settings, rows full of real tokens."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from component.artifacts.benchmark_picture import draw_bars
from component.pipeline.benchmark import table
from component.pipeline.benchmark.case import BARE_LOOP, TRAIN, Case, Rows
from component.pipeline.benchmark.chat_cases import COMMON, QUICK_KEYS
from component.pipeline.benchmark.options import QUICK_MODEL, add_common_options
from component.pipeline.benchmark.suite import Suite, speed_and_memory
from component.runtime.command import positive_int

SUITE, MODEL, WARM_UP = "loaders", "llama3 8b", 2
USE_UNSLOTH = {"vanilla": False, "unsloth": "require"}
#: Loader -> title of a line, its program and its keys. The bare loop of Unsloth has Unsloth's own adapters.
LINES: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "vanilla": {"bare loop": (BARE_LOOP, {}), "train.py": (TRAIN, {})},
    "unsloth": {
        "bare loop": (BARE_LOOP, {}),
        "train.py, Unsloth's own adapters": (TRAIN, {"fused_lora": False}),
        "train.py": (TRAIN, {}),
    },
}
ADAPTERS = "Through Unsloth, train.py has fused adapters where its line says nothing else, the bare loop Unsloth's own."
COLUMNS = (table.REAL_TOKENS, table.ALLOCATED, table.RESERVED, table.MFU, table.FIRST_STEP, table.RUNS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    replaced = ("--loaders", "--max_seq_length", "--steps")
    add_common_options(parser, SUITE, model=MODEL, replaced_by_quick=replaced)
    parser.add_argument("--loaders", nargs="+", default=list(USE_UNSLOTH), choices=list(USE_UNSLOTH))
    parser.add_argument("--max_seq_length", type=positive_int, default=2048, metavar="N")
    parser.add_argument("--batch", type=positive_int, default=4, metavar="N", help="rows of a micro-batch")
    parser.add_argument("--steps", type=positive_int, default=20, metavar="N", help="timed steps")


def run_suite(options: argparse.Namespace) -> None:
    """Measure each loader bare and through train.py, in turn."""
    suite = Suite(SUITE, options)
    lines = suite.measure(build_cases(options))
    suite.write(table.render_table(COLUMNS, lines), caption([line.case for line in lines]))
    draw_bars(speed_and_memory(lines), suite.picture)


def caption(cases: Sequence[Case]) -> str:
    """What the lines have in common, and what they have not."""
    settings = cases[0].settings
    how = f"All lines with the same settings: {settings['train_mode']}, rank {settings['lora_rank']}; medians."
    if not any(case.settings["use_unsloth"] for case in cases):
        return how
    return f"{how} {ADAPTERS}"


def build_cases(options: argparse.Namespace) -> list[Case]:
    """Each loader's bare loop, and train.py."""
    loaders = ["vanilla"] if options.quick else options.loaders
    warm_up, steps = (1, 1) if options.quick else (WARM_UP, options.steps)
    settings = {
        **COMMON,
        "max_seq_length": options.max_seq_length,
        "per_device_train_batch_size": options.batch,
        "max_steps": warm_up + steps,
        "logging_steps": warm_up,
    }
    quick = QUICK_KEYS if options.quick else {}
    model = QUICK_MODEL if options.quick and options.model == MODEL else options.model
    length = quick.get("max_seq_length", options.max_seq_length)
    rows = Rows("full", num_rows=(warm_up + steps) * options.batch, max_tokens=length)
    return [
        Case(
            f"{loader}, {title}",
            program,
            {**settings, "use_unsloth": USE_UNSLOTH[loader], **keys, **quick},
            model,
            rows,
            warm_up,
        )
        for loader in loaders
        for title, (program, keys) in LINES[loader].items()
    ]

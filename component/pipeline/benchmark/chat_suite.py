"""Suite `chat`: rows of chat length, padded and packed, by Firefly's recipe, Unsloth's own trainer and Lampyris."""

from __future__ import annotations

import argparse

from component.artifacts.benchmark_picture import draw_bars
from component.config.errors import UserError
from component.pipeline.benchmark import table
from component.pipeline.benchmark.case import Case, Rows
from component.pipeline.benchmark.chat_cases import COMMON, QUICK_CASES, QUICK_KEYS, VARIANTS, Variant
from component.pipeline.benchmark.options import QUICK_MODEL, add_common_options, add_names, quote_names
from component.pipeline.benchmark.suite import Suite, speed_and_memory
from component.runtime.command import Distinct, positive_float, positive_int

SUITE, MODEL = "chat", "llama3 8b"
#: Steps that are not timed, and those that are.
WARM_UP, STEPS = 4, 20
MEAN_TOKENS = 330

COLUMNS = (
    table.REAL_TOKENS, table.PADDED_TOKENS, table.ALLOCATED, table.RESERVED, table.MFU, table.FIRST_LOSS,
    table.LAST_LOSS, table.text("attention", "attention"), table.FIRST_STEP, table.RUNS,
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    add_common_options(parser, SUITE, model=MODEL, replaced_by_quick=("--max_seq_length", "--steps"))
    names = {f"of --rows {rows}": list(variants) for rows, variants in VARIANTS.items()}
    add_names(parser, "--cases", names, help="lines of the table", action=Distinct)
    parser.add_argument("--rows", choices=["chat", "full"], default="chat", help="full: every row is full")
    parser.add_argument("--max_seq_length", type=positive_int, default=2048, metavar="N")
    parser.add_argument("--max_memory_gib", type=positive_float, metavar="X", help="a cap for every run")
    parser.add_argument("--batch", type=positive_int, metavar="N", help="rows of a micro-batch, instead of each line's")
    parser.add_argument("--steps", type=positive_int, default=STEPS, metavar="N", help="timed steps")


def build_cases(options: argparse.Namespace) -> list[Case]:
    """The cases of the options.

    Raises:
        UserError: one that is named is not of these rows.
    """
    variants = VARIANTS[options.rows]
    names = options.cases or [name for name, variant in variants.items() if variant.is_default]
    if options.quick and not options.cases:
        names = list(QUICK_CASES[options.rows])
    for name in names:
        if name not in variants:
            raise UserError(f"--cases: {name!r} is none of --rows {options.rows}; there are {quote_names(variants)}")
    return [_build(name, variants[name], options) for name in names]


def _build(name: str, variant: Variant, options: argparse.Namespace) -> Case:
    warm_up, steps = (1, 1) if options.quick else (WARM_UP, options.steps)
    batch = options.batch or variant.batch
    settings = {
        **COMMON,
        "max_seq_length": options.max_seq_length,
        "per_device_train_batch_size": batch,
        "max_steps": warm_up + steps,
        "logging_steps": warm_up,
        **variant.keys,
        **({"max_memory_gib": options.max_memory_gib} if options.max_memory_gib else {}),
        **(QUICK_KEYS if options.quick else {}),
    }
    if batch == "auto":
        del settings["gradient_accumulation_steps"]  # follows from global_batch_size
    length = settings["max_seq_length"]
    mean = min(MEAN_TOKENS, length // 4)
    rows = Rows(options.rows, num_rows=64 if options.quick else 2000, max_tokens=length, mean_tokens=mean)
    model = QUICK_MODEL if options.quick and options.model == MODEL else options.model
    return Case(name, variant.program, settings, model, rows, warm_up, variant.environment)


def run_suite(options: argparse.Namespace) -> None:
    """Measure what is to be measured, and write the table and the picture."""
    suite, cases = Suite(SUITE, options), build_cases(options)
    lines = suite.measure(cases)
    suite.write(table.render_table(COLUMNS, lines), caption(cases[0]))
    draw_bars(speed_and_memory(lines), suite.picture)


def caption(case: Case) -> str:
    """What all lines have in common."""
    rows, steps = case.rows, case.settings["max_steps"] - case.warm_up
    data = "full of real tokens" if rows.kind == "full" else f"log-normal, mean {rows.mean_tokens} tokens"
    cap = case.settings.get("max_memory_gib")
    return (
        f"{case.model}, {case.settings['train_mode']}, rank {case.settings['lora_rank']} on all linear layers; rows "
        f"{data}, at most {rows.max_tokens}; {steps} steps after {case.warm_up} that are not timed; medians. "
        f"MFU: 4 FLOPs a parameter and real token, of the card's datasheet."
        f"{f' Memory is capped at {cap} GiB.' if cap else ''}"
    )

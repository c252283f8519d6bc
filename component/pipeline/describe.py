"""What a prepared run will do, as text: the report of `--dry_run`, and parts of the start card."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from component.artifacts.card import sample_card
from component.config.load import Config
from component.config.schema import schema_fields
from component.data.rows import Prepared
from component.pipeline.prepare import PreparedRun
from component.pipeline.steps import num_optimizer_steps, num_rows_per_step

MAX_SHOWN_TOKENS = 400


def sample_pieces(prepared: PreparedRun) -> tuple[tuple[str, bool], ...]:
    """The first training sample as decoded pieces, each supervised or not."""
    sample: Prepared = prepared.data.train[0]
    pieces, position = [], 0
    for start, end in (*sample.spans, (sample.length, sample.length)):
        for stop, is_supervised in ((start, False), (end, True)):
            stop = min(stop, MAX_SHOWN_TOKENS)
            if stop > position:
                pieces.append((prepared.tokenizer.decode(sample.input_ids[position:stop]), is_supervised))
                position = stop
    return tuple(pieces)


def describe_check(config: Config) -> Iterator[str]:
    """Lines of `--check`: the verdict and what was translated or is ignored."""
    yield from (str(notice) for notice in config.notices)
    model = config.model
    folder = config.written["output_dir"]
    yield f"{config.path or 'config'}: valid; {model.task_type}, {model.train_mode}, output to {folder}"


def describe_run(prepared: PreparedRun) -> Iterator[str]:
    """Lines of `--dry_run`: a sample with its supervised text marked, the data, resolved defaults, what will run."""
    config, data = prepared.config, prepared.data
    yield sample_card(sample_pieces(prepared), color=sys.stdout.isatty())
    for report in (data.report, data.eval_report):
        yield from report.lines() if report else ()
    yield from (f"template: {fact}" for fact in prepared.rendering.proven)
    hardware = prepared.hardware
    yield f"device: {hardware.name}, {hardware.free_memory_bytes / 2**30:.1f} GiB free"
    yield f"loader: {prepared.loader.got} ({prepared.loader.reason})"
    precision = prepared.precision
    yield f"precision: weights {precision.load_dtype}, computation {precision.compute_dtype}"
    yield from (f"default: {key}: {value}" for key, value in resolved_defaults(config).items())
    steps, rows = num_optimizer_steps(config.training, len(data.train)), num_rows_per_step(config.training)
    yield f"steps: {steps:,} optimizer steps of {rows:,} rows each"
    yield f"output: {config.run.output_dir}"
    yield from (f"notice: {notice}" for notice in (*prepared.notices, *precision.notices))


def resolved_defaults(config: Config) -> dict[str, object]:
    """Keys that no layer set and whose default depends on other keys, with the value they got."""
    return {
        key: config.values[key]
        for key, item in schema_fields().items()
        if key in config.written
        and key not in config.places
        and item.default is None
        and config.values[key] is not None
    }

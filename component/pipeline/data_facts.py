"""What people are shown of a run's data: counted, measured, and the rows to look at; no file is read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from component.artifacts.data_facts import DataFacts, SplitFacts, say_tokens
from component.artifacts.histogram import LengthPlot, length_bins
from component.config.batches import AUTO
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.schema import TrainingSection
from component.data.chunks import Sample
from component.data.order import epoch_order, grouped_order
from component.data.packing import pack, packing_fill
from component.data.report import DataReport, FileReport, describe_source, say_rows
from component.data.samples import Samples
from component.pipeline.notable_rows import cut_and_equal_rows, dropped_rows, least_supervised, worst_rows
from component.pipeline.rendering import Rendering
from component.pipeline.sample_text import shown_sample
from component.pipeline.steps import num_rows_per_step

if TYPE_CHECKING:
    from component.data.prepare import PreparedData
    from component.pipeline.prepare import PreparedRun
    from component.pipeline.run_data import RunData

MAX_BINS, MAX_DRAWN_BINS = 16, 60
#: The limit is drawn where samples come as near as this.
NEAR_LIMIT = 0.8


def data_facts(prepared: PreparedRun | RunData, training: TrainingSection, *, samples: Iterable[Sample]) -> DataFacts:
    """Gather what is shown of prepared data.

    Args:
        training: decides what the rows of a batch are.
        samples: those whose text is shown.
    """
    data, limit = prepared.data, training.max_seq_length
    splits = [_split_facts(data, data.report, data.train, _row_numbers(data.train, training), limit)]
    if data.eval_report is not None:
        splits.append(_split_facts(data, data.eval_report, data.evaluation, (), limit))
    return DataFacts(
        rendering=tuple(_rendering_rows(prepared.rendering)),
        samples=tuple(shown_sample(sample, prepared.tokenizer) for sample in samples),
        splits=tuple(splits),
    )


def _rendering_rows(rendering: Rendering) -> Iterator[tuple[str, str]]:
    if rendering.renderer is not None:
        yield "template", rendering.renderer.template.name
    if rendering.proven:
        yield "self-test", "\n".join(rendering.proven)


def _split_facts(
    data: PreparedData,
    report: DataReport,
    samples: Samples,
    row_numbers: Iterable[tuple[str, str]],
    max_seq_length: int,
) -> SplitFacts:
    lengths = samples.lengths
    return SplitFacts(
        name=report.split,
        numbers=(*_counts(report), *row_numbers, *_remarks(report)),
        bins=length_bins(lengths, max_bins=MAX_BINS),
        plot=LengthPlot(
            f"{report.split}: {len(samples):,} samples",
            length_bins(lengths, max_bins=MAX_DRAWN_BINS),
            tuple(_marks(report, max_seq_length)),
        ),
        longest=tuple(worst_rows(samples, -lengths)),
        least_supervised=tuple(least_supervised(samples)),
        others=tuple(cut_and_equal_rows(samples, None if samples is data.train else data.train)),
        dropped=tuple(dropped_rows(report, data)),
    )


def _marks(report: DataReport, max_seq_length: int) -> Iterator[tuple[str, int]]:
    for name in ("p50", "p90", "p99"):
        yield name, getattr(report.lengths, name)
    if report.lengths.maximum > NEAR_LIMIT * max_seq_length:
        yield "max_seq_length", max_seq_length


def _counts(report: DataReport) -> Iterator[tuple[str, str]]:
    rest = (
        (report.rows_held_out, "held out for evaluation"),
        (report.rows_left_out, "left out by mixture_weights"),
        (report.rows_repeated, "equal to an earlier one"),
        (report.rows_also_in_train, "also in the training data"),
    )
    rows = f"{report.rows_read:,} read, {report.rows_used:,} used, {report.rows_dropped:,} dropped"
    yield "rows", rows + "".join(f", {count:,} {what}" for count, what in rest if count)
    yield "samples", f"{report.num_samples:,}"
    yield "tokens", say_tokens(report.num_tokens, report.num_supervised_tokens).replace("tokens", "in all", 1)
    cut = f"{report.num_truncated_tokens:,} tokens of {say_rows(report.rows_truncated)}"
    yield "truncated", cut + f", {report.rows_without_stop:,} of them without their stop token"
    length = report.lengths
    yield (
        "length",
        f"min {length.minimum:,}, p50 {length.p50:,}, p90 {length.p90:,}, p99 {length.p99:,}, max {length.maximum:,}",
    )


def _row_numbers(samples: Samples, training: TrainingSection) -> Iterator[tuple[str, str]]:
    """How full the rows of a batch are, packed and not."""
    lengths = samples.lengths
    if not len(lengths) or training.task_type not in LANGUAGE_MODEL_TASKS:
        return
    capacity = training.max_seq_length
    packs = pack(lengths, capacity=capacity)
    fill = packing_fill(lengths, packs, capacity=capacity)
    name = {True: "true", False: "false"}.get(training.packing, str(training.packing))
    yield "packed", f"{say_rows(len(packs))} of {capacity:,} tokens, {fill:.1%} full (packing: {name})"
    order = _order(lengths, training)
    size = training.per_device_train_batch_size
    if size == AUTO:  # not chosen yet: all rows of a step
        size = num_rows_per_step(training)
    how = "grouped by length" if training.group_by_length else "of mixed lengths"
    yield "unpacked", f"batches of {say_rows(size)} {how}, {batch_fill(lengths[order], size):.1%} full"


def _order(lengths: np.ndarray, training: TrainingSection) -> list[int]:
    seed = training.seed if training.data_seed is None else training.data_seed
    if not training.group_by_length:
        return epoch_order(len(lengths), seed=seed, epoch=0)
    return grouped_order(lengths.tolist(), rows_per_step=num_rows_per_step(training), seed=seed, epoch=0)


def batch_fill(lengths: np.ndarray, batch_size: int) -> float:
    """Share of the tokens of padded batches that is real.

    Args:
        lengths: tokens of the rows, in the order in which they go into batches, shape (num_rows,).
    """
    padded = np.zeros(-(-len(lengths) // batch_size) * batch_size, dtype=np.int64)
    padded[: len(lengths)] = lengths
    batches = padded.reshape(-1, batch_size)
    rows = np.count_nonzero(batches, axis=1)
    return float(lengths.sum() / (batches.max(axis=1) * rows).sum())


def _remarks(report: DataReport) -> Iterator[tuple[str, str]]:
    if report.files:
        yield "files", "\n".join(map(_describe_file, report.files))
    if len(report.sources) > 1:
        yield "sources", "\n".join(map(describe_source, report.sources))
    if report.unread_columns:
        columns = (f"{name} ({say_rows(count)})" for name, count in report.unread_columns.items())
        yield "not read", f"columns {', '.join(columns)}"
    if report.notices:
        yield "notices", "\n".join(report.notices)


def _describe_file(file: FileReport) -> str:
    how = "detected" if file.is_detected else "as set"
    return f"{file.path}: {say_rows(file.rows)}, " + (
        f"{file.data_format} ({how})" if file.data_format else "no format"
    )

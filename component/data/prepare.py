"""From the data section of a config to samples: find the files, prepare or map their rows, mix, split, and report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.bad_rows import check_enough
from component.data.cache import Cache
from component.data.counting import CountedEntry, report_held_out, report_split
from component.data.encoders.interface import RowEncoder
from component.data.entries import prepare_entry
from component.data.filling import EntryFiles
from component.data.fingerprint import fingerprint
from component.data.mixture import mix_rows
from component.data.report import DataReport
from component.data.rows import Failure
from component.data.samples import Samples
from component.data.sources import find_files, hash_files
from component.data.split import split_rows
from component.data.threads import set_tokenizer_threads


@dataclass(frozen=True)
class PreparedData:
    """The samples of a run.

    Attributes:
        train: samples to train on, in the order of files and rows, or as they are mixed.
        evaluation: samples to evaluate on; empty without `eval_file` and `eval_split`.
        report: on the training data.
        eval_report: on the evaluation data, None without.
        fingerprint: hash of the data files, the rendering and the options; another row makes another hash.
        entries: of the config, those of train_file first.
    """

    train: Samples
    evaluation: Samples
    report: DataReport
    eval_report: DataReport | None
    fingerprint: str
    entries: tuple[CountedEntry, ...] = field(compare=False)

    def failures(self) -> Iterator[Failure]:
        """All rows that were dropped, however many, in the order of the files; a report names the first ones."""
        for entry in self.entries:
            yield from entry.rows.failures()


def prepare_data(data: DataSection, encoder: RowEncoder, *, refuse_bad_rows: bool = True) -> PreparedData:
    """Prepare the training and evaluation data of a run.

    Args:
        data: the config's data section.
        encoder: of the kind of rows that the task trains on.
        refuse_bad_rows: false leaves it to the caller to `check_enough`, and no row may be usable.

    Raises:
        UserError: a file is missing, unreadable or of an unknown kind, or the cache cannot be used.
        DataError: a row at fault with `truncation: error`, more rows dropped than `max_bad_rows` allows, no usable row.
    """
    notices = set_tokenizer_threads(data.tokenize_num_workers)
    train_split = _prepare_split(data, "train_file", data.train_file, encoder, refuse_bad_rows)
    train, evaluation, eval_entries, rows_held_out = train_split.samples, Samples(()), (), 0
    eval_report = None
    if data.eval_file is not None:
        eval_split = _prepare_split(data, "eval_file", data.eval_file, encoder, refuse_bad_rows)
        evaluation, eval_entries = eval_split.samples, eval_split.entries
        eval_report = eval_split.report("evaluation", evaluation, data, train=train)
    elif data.eval_split is not None and train.num_rows:
        train_rows, eval_rows = split_rows(train.num_rows, data.eval_split, data.seed)
        evaluation, train = train.take_rows(eval_rows), train.take_rows(train_rows)
        rows_held_out = evaluation.num_rows
        eval_report = report_held_out(evaluation, train)
    train_split = replace(train_split, notices=(*notices, *train_split.notices))
    hashes = [sha256 for entry in train_split.entries for sha256 in entry.hashes]
    if data.eval_file is not None:
        hashes += ["eval", *(sha256 for entry in eval_entries for sha256 in entry.hashes)]
    return PreparedData(
        train=train,
        evaluation=evaluation,
        report=train_split.report("train", train, data, rows_held_out=rows_held_out),
        eval_report=eval_report,
        fingerprint=fingerprint(hashes, _options(data, encoder)),
        entries=(*train_split.entries, *eval_entries),
    )


def _options(data: DataSection, encoder: RowEncoder) -> dict[str, Any]:
    """What else decides which tokens the files become."""
    return {
        "encoder": encoder.facts(),
        "data_format": data.data_format,
        "columns": data.columns,
        "max_samples": data.max_samples,
        "mixture_weights": data.mixture_weights,
        "mixture_seed": None if data.mixture_weights is None else data.seed,
        "eval_split": data.eval_split,
        "eval_split_seed": None if data.eval_split is None else data.seed,
    }


@dataclass(frozen=True)
class _Split:
    """What one key of the config names."""

    entries: tuple[CountedEntry, ...]
    samples: Samples
    notices: tuple[str, ...]

    def report(self, name: str, samples: Samples, data: DataSection, **counts: Any) -> DataReport:
        """What the data report says of these samples."""
        is_detected = data.data_format == "auto"
        return report_split(name, self.entries, samples, is_detected=is_detected, notices=self.notices, **counts)


def _prepare_split(
    data: DataSection, key: str, names: Sequence[str], encoder: RowEncoder, refuse_bad_rows: bool
) -> _Split:
    """Prepare the rows of all files of one key."""
    found = find_files(names, key=key, row_kind=encoder.row_kind)
    hash_of = hash_files([file.path for file in found.files], key=key)
    cache, entries, notices = Cache(data.cache_dir), list[CountedEntry](), list(found.notices)
    for number, (name, limit) in enumerate(zip(names, _limits(data, key, names), strict=True)):
        source = EntryFiles(name, tuple(file for file in found.files if file.entry == number), limit)
        hashes = [hash_of[str(file.path)] for file in source.files]
        rows, about = prepare_entry(source, hashes, data, encoder, cache)
        entries.append(CountedEntry(source, hashes, rows, rows.tally.rows_used))
        notices += about
    if refuse_bad_rows:
        check_enough(data, key, report_split(key, entries, Samples(()), is_detected=False))
    samples = Samples.concatenate([entry.rows.samples for entry in entries])
    if key == "train_file" and data.mixture_weights is not None and samples.num_rows:
        entries, samples = _mix(entries, samples, data.mixture_weights, data.seed)
    return _Split(tuple(entries), samples, tuple(notices))


def _limits(data: DataSection, key: str, names: Sequence[str]) -> list[int | None]:
    """How many usable rows are taken of each entry at most."""
    if key != "train_file" or data.max_samples is None:
        return [None] * len(names)
    return list(data.max_samples) if isinstance(data.max_samples, list) else [data.max_samples] * len(names)


def _mix(
    entries: Sequence[CountedEntry], samples: Samples, weights: Sequence[float], seed: int
) -> tuple[list[CountedEntry], Samples]:
    """Interleave the rows of the entries by weight.

    Raises:
        DataError: an entry that has a weight has no row, or none that an entry before it has not.
    """
    sizes = [entry.rows.tally.rows_used for entry in entries]
    for entry, size in zip(entries, sizes, strict=True):
        if not entry.source.files:
            raise DataError(
                f"mixture_weights: {entry.source.name} is named twice and read once; "
                "leave it out the second time, with its weight"
            )
        if not size:
            raise DataError(
                f"mixture_weights: {entry.source.name} has a weight and no usable row; correct it, or drop both"
            )
    sources, rows = mix_rows(sizes, weights, seed)
    taken = np.bincount(sources, minlength=len(sizes)).tolist()
    counted = [
        replace(entry, weight=weight, rows_taken=count)
        for entry, weight, count in zip(entries, weights, taken, strict=True)
    ]
    first_rows = np.cumsum([0, *sizes[:-1]])
    return counted, samples.take_rows(first_rows[sources] + rows)

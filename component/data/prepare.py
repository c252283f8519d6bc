"""From the data section of a config to samples: read, parse, render, cut, split, and a report on all of it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.encoders.interface import RowEncoder
from component.data.fingerprint import fingerprint
from component.data.mixture import mix_rows
from component.data.reading import read_rows
from component.data.report import DataReport, FileReport, describe_reasons
from component.data.rows import Failure, Prepared, Row, RowError
from component.data.sources import DataFile, find_files, hash_files
from component.data.split import split_rows
from component.data.tally import Tally
from component.data.threads import set_tokenizer_threads

_BATCH_SIZE = 1000
_NUM_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class PreparedData:
    """The samples of a run.

    Attributes:
        train: samples to train on, in the order of files and rows.
        evaluation: samples to evaluate on; empty without `eval_file` and `eval_split`.
        report: on the training data.
        eval_report: on the evaluation data, None without.
        fingerprint: hash of the data files, the rendering and the options; another row makes another hash.
    """

    train: tuple[Prepared, ...]
    evaluation: tuple[Prepared, ...]
    report: DataReport
    eval_report: DataReport | None
    fingerprint: str


#: The samples that one row made: one, or the pieces of a document.
RowSamples = tuple[Prepared, ...]


def prepare_data(data: DataSection, encoder: RowEncoder) -> PreparedData:
    """Prepare the training and evaluation data of a run.

    Args:
        data: the config's data section.
        encoder: of the kind of rows that the task trains on.

    Raises:
        UserError: a file is missing, unreadable or of an unknown kind.
        DataError: a row at fault with `truncation: error`, more rows dropped than `max_bad_rows` allows, no usable row.
    """
    tally = Tally("train")
    tally.note(*set_tokenizer_threads(data.tokenize_num_workers))
    train = _prepare_split(data, "train_file", data.train_file, encoder, tally)
    hashes = [file.sha256 for file in tally.files]
    evaluation: list[RowSamples] = []
    eval_tally: Tally | None = None
    rows_held_out = 0
    if data.eval_file is not None:
        eval_tally = Tally("evaluation")
        evaluation = _prepare_split(data, "eval_file", data.eval_file, encoder, eval_tally)
        hashes += ["eval", *(file.sha256 for file in eval_tally.files)]
    elif data.eval_split is not None:
        train_rows, eval_rows = split_rows(len(train), data.eval_split, data.seed)
        evaluation, train = [train[row] for row in eval_rows], [train[row] for row in train_rows]
        rows_held_out = len(evaluation)
        eval_tally = tally.held_out(rows_held_out)
    samples = tuple(itertools.chain.from_iterable(train))
    eval_samples = tuple(itertools.chain.from_iterable(evaluation))
    eval_report = None
    if eval_tally is not None:
        eval_report = eval_tally.report(eval_samples, rows_also_in_train=_count_common_rows(train, evaluation))
    return PreparedData(
        train=samples,
        evaluation=eval_samples,
        report=tally.report(samples, rows_held_out=rows_held_out),
        eval_report=eval_report,
        fingerprint=fingerprint(hashes, _options(data, encoder)),
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


def _prepare_split(
    data: DataSection, key: str, entries: Sequence[str], encoder: RowEncoder, tally: Tally
) -> list[RowSamples]:
    """Prepare all files of one split; `tally` counts along."""
    files = find_files(entries, key=key, row_kind=encoder.row_kind)
    tally.note(*files.notices)
    hashes = hash_files([file.path for file in files.files], key=key)
    limits = _limits(data, key, entries)
    rows: list[list[RowSamples]] = [[] for _ in entries]
    for number, entry in enumerate(entries):
        before = tally.rows_read, tally.rows_dropped
        for file in files.files:
            if file.entry == number:
                limit = None if limits[number] is None else limits[number] - len(rows[number])
                rows[number] += _prepare_file(file, hashes[str(file.path)], data, encoder, tally, limit)
        tally.count_entry(entry, before, len(rows[number]))
    tally.rows_used = sum(map(len, rows))
    _check_enough(data, key, entries, tally)
    return _mix(rows, data, key, tally)


def _prepare_file(
    file: DataFile, sha256: str, data: DataSection, encoder: RowEncoder, tally: Tally, limit: int | None
) -> list[RowSamples]:
    """Prepare a file up to a number of usable rows."""
    if limit == 0:
        tally.note(f"{file.name} is not read: max_samples is reached before it")
        tally.files.append(FileReport(file.name, sha256, 0, None, False))
        return []
    before = tally.rows_read
    read = read_rows(file, data, encoder.row_kind, tally)
    rows = list(_encode(read.rows, encoder, tally, limit))
    num_rows = tally.rows_read - before
    if not num_rows:
        tally.note(f"{file.name} holds no rows")
    if len(rows) == limit:
        tally.note(f"{file.name} is read up to row {num_rows:,}, where max_samples is reached")
    tally.files.append(FileReport(file.name, sha256, num_rows, read.data_format, data.data_format == "auto"))
    return rows


def _limits(data: DataSection, key: str, entries: Sequence[str]) -> list[int | None]:
    """How many usable rows are taken of each entry at most."""
    if key != "train_file" or data.max_samples is None:
        return [None] * len(entries)
    return list(data.max_samples) if isinstance(data.max_samples, list) else [data.max_samples] * len(entries)


def _mix(rows: Sequence[list[RowSamples]], data: DataSection, key: str, tally: Tally) -> list[RowSamples]:
    """Put the rows of the entries after each other, or interleave them by weight.

    Raises:
        DataError: an entry that has a weight has no row.
    """
    if key != "train_file" or data.mixture_weights is None:
        return list(itertools.chain.from_iterable(rows))
    for entry, of_entry in zip(data.train_file, rows, strict=True):
        if not of_entry:
            raise DataError(f"mixture_weights: {entry} has a weight and no usable row; correct it, or drop both")
    order = mix_rows([len(of_entry) for of_entry in rows], data.mixture_weights, data.seed)
    tally.count_mixture(data.mixture_weights, [source for source, _ in order])
    return [rows[source][row] for source, row in order]


def _encode(rows: Iterator[Row], encoder: RowEncoder, tally: Tally, limit: int | None) -> Iterator[RowSamples]:
    """Make samples of rows, batch by batch, until there are enough; what cannot be used is counted and left out."""
    num_wanted = sys.maxsize if limit is None else limit
    while num_wanted and (batch := list(itertools.islice(rows, min(_BATCH_SIZE, num_wanted)))):
        for row, encoded in zip(batch, encoder.encode_rows(batch), strict=True):
            if isinstance(encoded, RowError):
                tally.drop(Failure(row.source, str(encoded)))
                continue
            tally.note_encoded(row.source, encoded)
            yield encoded.samples
            num_wanted -= 1


def _check_enough(data: DataSection, key: str, entries: Sequence[str], tally: Tally) -> None:
    """Check that a split has usable rows and not too many bad ones.

    Raises:
        DataError: it has not; the first bad rows follow the summary, one line each.
    """
    if not tally.rows_read:
        raise DataError(f"{key}: {', '.join(entries)} holds no rows; put data there or name another file")
    share = tally.rows_dropped / tally.rows_read
    if tally.rows_used and share <= data.max_bad_rows:
        return
    summary = f"{tally.rows_dropped:,} of {tally.rows_read:,} rows cannot be used ({describe_reasons(tally.reasons)})"
    examples = [str(failure) for failure in tally.failures[:_NUM_SHOWN_FAILURES]]
    if not tally.rows_used:
        raise DataError(f"{key}: no usable row: {summary}; correct the data", *examples)
    raise DataError(
        f"{key}: {summary}, a share of {share:.4f}; max_bad_rows allows {data.max_bad_rows:g}: "
        "correct the data, or raise max_bad_rows",
        *examples,
    )


def _count_common_rows(train: Sequence[RowSamples], evaluation: Sequence[RowSamples]) -> int:
    """How many evaluation rows equal a training row, token for token."""
    seen = {_tokens(row) for row in train}
    return sum(_tokens(row) in seen for row in evaluation)


def _tokens(row: RowSamples) -> tuple[tuple[int, ...], ...]:
    return tuple(sample.input_ids for sample in row)

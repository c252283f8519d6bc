"""From the data section of a config to samples: read, parse, render, cut, split, and a report on all of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import DataError, UserError
from component.config.schema import DataSection
from component.data.fingerprint import fingerprint, hash_tokenizer
from component.data.formats.detect import NUM_ROWS, check_format, detect_format
from component.data.formats.interface import load_format
from component.data.render import Renderer
from component.data.rendered import Encoded
from component.data.report import DataReport, FileReport, describe_reasons
from component.data.rows import Failure, Prepared, Row, RowError
from component.data.sources import Record, find_files, hash_files, read_records
from component.data.split import split_rows
from component.data.tally import Tally
from component.data.text_encoder import EncodedText, TextEncoder
from component.data.threads import set_tokenizer_threads
from component.data.truncation import keep_end, keep_start, loses_stop_token, split_document

_BATCH_SIZE = 1000
_NUM_SHOWN_FAILURES = 5

Encoder = Renderer | TextEncoder
"""Makes tokens of rows: conversations are encoded by a renderer, documents by a text encoder."""


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


def prepare_data(data: DataSection, encoder: Encoder, row_kind: str) -> PreparedData:
    """Prepare the training and evaluation data of a run.

    Args:
        data: the config's data section.
        encoder: a `Renderer` for messages, a `TextEncoder` for text.
        row_kind: what the task trains on, "messages" or "text".

    Raises:
        UserError: a file is missing, unreadable or of an unknown kind.
        DataError: a row at fault with `truncation: error`, more rows dropped than `max_bad_rows` allows, no usable row.
    """
    if data.max_seq_length < 2:
        raise UserError("max_seq_length: got 1; use at least 2: a single token has nothing to predict")
    tally = Tally("train")
    tally.note(*set_tokenizer_threads(data.tokenize_num_workers))
    train = _prepare_split(data, "train_file", data.train_file, encoder, row_kind, tally)
    hashes = [file.sha256 for file in tally.files]
    evaluation: list[RowSamples] = []
    eval_tally: Tally | None = None
    rows_held_out = 0
    if data.eval_file is not None:
        eval_tally = Tally("evaluation")
        evaluation = _prepare_split(data, "eval_file", data.eval_file, encoder, row_kind, eval_tally)
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
        fingerprint=fingerprint(hashes, _options(data, encoder, row_kind)),
    )


def _options(data: DataSection, encoder: Encoder, row_kind: str) -> dict[str, Any]:
    """What else decides which tokens the files become."""
    return {
        "tokenizer": hash_tokenizer(encoder.tokenizer),
        "rendering": encoder.fingerprint() if isinstance(encoder, Renderer) else row_kind,
        "data_format": data.data_format,
        "max_seq_length": data.max_seq_length,
        "truncation": data.truncation,
        "eval_split": data.eval_split,
        "eval_split_seed": None if data.eval_split is None else data.seed,
    }


def _prepare_split(
    data: DataSection, key: str, entries: Sequence[str], encoder: Encoder, row_kind: str, tally: Tally
) -> list[RowSamples]:
    """Prepare all files of one split; `tally` counts along."""
    files = find_files(entries, key=key, row_kind=row_kind)
    tally.note(*files.notices)
    hashes = hash_files(files.paths, key=key)
    rows: list[RowSamples] = []
    for path in files.paths:
        before = tally.rows_read
        name, parsed = _parse_file(path, data.data_format, row_kind, tally)
        rows.extend(_encode(parsed, encoder, data, tally))
        num_rows = tally.rows_read - before
        if not num_rows:
            tally.note(f"{path} holds no rows")
        is_detected = data.data_format == "auto"
        tally.files.append(FileReport(str(path), hashes[str(path)], num_rows, name, is_detected))
    tally.rows_used = len(rows)
    _check_enough(data, key, entries, tally)
    return rows


def _parse_file(path: Path, data_format: str, row_kind: str, tally: Tally) -> tuple[str | None, Iterator[Row]]:
    """Return the format of a file, None if no row can be read, and its rows; bad ones are counted and left out."""
    records = read_records(path)
    first = list(itertools.islice(records, NUM_ROWS))
    values = [record.value for record in first if isinstance(record, Record)]
    name: str | None = data_format
    if data_format != "auto":
        check_format(data_format, values, row_kind, str(path))
    elif values:
        name = detect_format(values, row_kind, str(path))
    else:
        # Broken rows at the start are no reason to give up on the file: look at the first that can be read.
        rest, records = itertools.tee(records)
        value = next((record.value for record in rest if isinstance(record, Record)), None)
        name = None if value is None else detect_format([value], row_kind, str(path))
    return name, _parse(itertools.chain(first, records), name, tally)


def _parse(records: Iterable[Record | Failure], name: str | None, tally: Tally) -> Iterator[Row]:
    """Make rows of records; what cannot be used is counted and left out."""
    row_format = None if name is None else load_format(name)
    for record in records:
        tally.rows_read += 1
        if isinstance(record, Failure):
            tally.drop(record)
            continue
        assert row_format is not None
        try:
            row = row_format.parse(record.value, record.source)
        except RowError as error:
            tally.drop(Failure(record.source, str(error)))
            continue
        tally.note_row(row)
        yield row


def _encode(rows: Iterable[Row], encoder: Encoder, data: DataSection, tally: Tally) -> Iterator[RowSamples]:
    """Make samples of rows, batch by batch; what cannot be used is counted and left out."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _BATCH_SIZE)):
        if isinstance(encoder, TextEncoder):
            encoded = encoder.encode_batch([row.text or "" for row in batch])
            make = _split
        else:
            encoded = encoder.encode_batch([(row.messages, row.tools) for row in batch])
            make = functools.partial(_fit, renderer=encoder)
        for row, tokens in zip(batch, encoded, strict=True):
            try:
                yield make(tokens, row, data, tally)
            except RowError as error:
                tally.drop(Failure(row.source, str(error)))


def _split(encoded: EncodedText | RowError, row: Row, data: DataSection, tally: Tally) -> RowSamples:
    """Make samples of an encoded document, however long.

    Raises:
        RowError: it has nothing to predict.
    """
    if isinstance(encoded, RowError):
        raise encoded
    token_ids, _ = encoded
    if len(token_ids) < 2:
        raise RowError("no supervised token: a single token has nothing to predict")
    return tuple(split_document(token_ids, data.max_seq_length, row.source))


def _fit(encoded: Encoded | RowError, row: Row, data: DataSection, tally: Tally, *, renderer: Renderer) -> RowSamples:
    """Make samples of an encoded conversation within the length limit.

    Raises:
        RowError: it was not rendered, nothing in it is supervised, or it is too long and `truncation` does not mend it.
        DataError: it is too long and `truncation` is error.
    """
    if isinstance(encoded, RowError):
        raise encoded
    sample = Prepared(encoded.input_ids, encoded.spans, row.source)
    limit = data.max_seq_length
    if not any(end > max(start, 1) for start, end in sample.spans):
        raise RowError("no supervised token: the template renders no answer to learn")
    samples = (sample,)
    if sample.length > limit:
        if data.truncation == "split_turns":
            samples = _split_turns(sample, row, limit, tally, renderer)
        else:
            samples = (_cut(sample, data, tally),)
    tally.note_encoding(encoded.notices)
    return samples


def _cut(sample: Prepared, data: DataSection, tally: Tally) -> Prepared:
    """Cut a sample that is too long.

    Raises:
        RowError, DataError: as `_fit`.
    """
    limit = data.max_seq_length
    if data.truncation == "error":
        raise DataError(
            f"{sample.source}: {sample.length} tokens, over max_seq_length {limit}; "
            "raise max_seq_length, or set truncation to drop, keep_start, keep_end or split_turns"
        )
    if data.truncation == "drop":
        raise RowError(f"over max_seq_length: {sample.length} tokens, {limit} allowed")
    cut = (keep_end if data.truncation == "keep_end" else keep_start)(sample, limit)
    tally.cut_tokens[sample.source] = sample.length - limit
    if data.truncation == "keep_start" and loses_stop_token(sample, limit):
        tally.without_stop.add(sample.source)
    return cut


def _split_turns(sample: Prepared, row: Row, limit: int, tally: Tally, renderer: Renderer) -> RowSamples:
    """Split a conversation that is too long between its turns.

    Raises:
        RowError: no turn that is learned fits.
    """
    pieces, tokens_left_out = renderer.encode_split(row.messages, row.tools, limit)
    if not pieces:
        raise RowError(f"over max_seq_length: {sample.length} tokens, {limit} allowed, and no single turn fits")
    if tokens_left_out:
        tally.cut_tokens[row.source] = tokens_left_out
    return tuple(Prepared(piece.input_ids, piece.spans, row.source) for piece in pieces)


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

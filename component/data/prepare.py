"""From the data section of a config to samples: read, parse, render, cut, split, and a report on all of it."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from component.config.errors import DataError, UserError
from component.config.schema import DataSection
from component.data.fingerprint import fingerprint, hash_tokenizer
from component.data.mixture import mix_rows
from component.data.reading import read_rows
from component.data.render import Renderer
from component.data.rendered import Encoded
from component.data.report import DataReport, FileReport, describe_reasons
from component.data.rows import Failure, Prepared, Row, RowError
from component.data.segment_encoder import SegmentEncoder
from component.data.sources import DataFile, find_files, hash_files
from component.data.split import split_rows
from component.data.tally import Tally
from component.data.templates import load_chat_template
from component.data.text_encoder import EncodedText, TextEncoder
from component.data.threads import set_tokenizer_threads
from component.data.truncation import keep_end, keep_start, loses_stop_token, split_document

_BATCH_SIZE = 1000
_NUM_SHOWN_FAILURES = 5

Encoder = Renderer | TextEncoder | SegmentEncoder
"""Makes tokens of rows: conversations are encoded by a renderer, documents by a text encoder, pieces of text by a
segment encoder, which stands for the renderer where a tokenizer has no chat template."""


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
        encoder: a `Renderer` for messages, or a `SegmentEncoder` without a template; a `TextEncoder` for text.
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
        "columns": data.columns,
        "max_samples": data.max_samples,
        "mixture_weights": data.mixture_weights,
        "mixture_seed": None if data.mixture_weights is None else data.seed,
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
    hashes = hash_files([file.path for file in files.files], key=key)
    limits = _limits(data, key, entries)
    rows: list[list[RowSamples]] = [[] for _ in entries]
    for number, entry in enumerate(entries):
        before = tally.rows_read, tally.rows_dropped
        for file in files.files:
            if file.entry == number:
                limit = None if limits[number] is None else limits[number] - len(rows[number])
                rows[number] += _prepare_file(file, hashes[str(file.path)], data, encoder, row_kind, tally, limit)
        tally.count_entry(entry, before, len(rows[number]))
    tally.rows_used = sum(map(len, rows))
    _check_enough(data, key, entries, tally)
    return _mix(rows, data, key, tally)


def _prepare_file(
    file: DataFile, sha256: str, data: DataSection, encoder: Encoder, row_kind: str, tally: Tally, limit: int | None
) -> list[RowSamples]:
    """Prepare a file up to a number of usable rows."""
    if limit == 0:
        tally.note(f"{file.name} is not read: max_samples is reached before it")
        tally.files.append(FileReport(file.name, sha256, 0, None, False))
        return []
    before = tally.rows_read
    read = read_rows(file, data, row_kind, tally)
    rows = list(_encode(read.rows, encoder, data, tally, limit))
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


def _encode(
    rows: Iterator[Row], encoder: Encoder, data: DataSection, tally: Tally, limit: int | None
) -> Iterator[RowSamples]:
    """Make samples of rows, batch by batch, until there are enough; what cannot be used is counted and left out."""
    num_wanted = sys.maxsize if limit is None else limit
    while num_wanted and (batch := list(itertools.islice(rows, min(_BATCH_SIZE, num_wanted)))):
        for row, make in zip(batch, _encode_batch(batch, encoder, data, tally), strict=True):
            try:
                yield make()
                num_wanted -= 1
            except RowError as error:
                tally.drop(Failure(row.source, str(error)))


def _encode_batch(
    batch: Sequence[Row], encoder: Encoder, data: DataSection, tally: Tally
) -> Iterator[Callable[[], RowSamples]]:
    """Encode rows; what is given for each of them makes its samples."""
    if isinstance(encoder, TextEncoder):
        for row, text in zip(batch, encoder.encode_batch([row.text or "" for row in batch]), strict=True):
            yield functools.partial(_split, text, row, data, tally)
        return
    of_segments = [row for row in batch if row.segments]
    of_messages = [row for row in batch if not row.segments]
    pieces = iter(_segment_encoder(encoder, data).encode_batch(of_segments))
    if of_messages and isinstance(encoder, SegmentEncoder):
        load_chat_template("auto", encoder.tokenizer)  # says that there is none, and what to do
    conversations = iter(
        []
        if isinstance(encoder, SegmentEncoder)
        else encoder.encode_batch([(row.messages, row.tools) for row in of_messages])
    )
    for row in batch:
        if row.segments:
            yield functools.partial(_fit_segments, next(pieces), row, data, tally)
        else:
            yield functools.partial(_fit, next(conversations), row, data, tally, renderer=encoder)


def _segment_encoder(encoder: Renderer | SegmentEncoder, data: DataSection) -> SegmentEncoder:
    if isinstance(encoder, SegmentEncoder):
        return encoder
    return SegmentEncoder(
        encoder.tokenizer, append_stop_token=data.append_stop_token, train_on_prompt=data.train_on_prompt
    )


def _fit_segments(encoded: Encoded | RowError, row: Row, data: DataSection, tally: Tally) -> RowSamples:
    """Make a sample of encoded segments within the length limit.

    Raises:
        RowError, DataError: as `_fit`; segments have no turns to split.
    """
    if isinstance(encoded, RowError):
        raise encoded
    num_tokens = len(encoded.input_ids)
    if data.truncation == "split_turns" and num_tokens > data.max_seq_length:
        raise RowError(
            f"over max_seq_length: {num_tokens} tokens, {data.max_seq_length} allowed, and no turns to split"
        )
    return _fit(encoded, row, data, tally, renderer=None)


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


def _fit(
    encoded: Encoded | RowError, row: Row, data: DataSection, tally: Tally, *, renderer: Renderer | None
) -> RowSamples:
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

"""The rows to look at: the longest, the least supervised, those that were cut, that stand twice, or were dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from component.artifacts.data_facts import DroppedRows, ShownRow
from component.data.report import DataReport, reason_category
from component.data.rows import Failure
from component.data.samples import Samples
from component.pipeline.sample_text import shown_row

if TYPE_CHECKING:
    from component.data.prepare import PreparedData

NUM_WORST = 5
NUM_EXAMPLES = 3
#: Rows of which the loss counts less than this share of tokens are worth a look.
FEW_SUPERVISED = 0.5


def worst_rows(samples: Samples, order_by: np.ndarray) -> Iterator[ShownRow]:
    """The first samples in an order, those that are equal in it as they stand."""
    for index in np.argsort(order_by, kind="stable")[:NUM_WORST].tolist():
        yield shown_row(samples[index])


def least_supervised(samples: Samples) -> Iterator[ShownRow]:
    """The samples of which the loss counts the least share, where there are some of which it counts little."""
    shares = samples.num_supervised_tokens / samples.num_tokens
    if len(shares) and shares.min() < FEW_SUPERVISED and shares.any():
        yield from worst_rows(samples, shares)


def cut_and_equal_rows(samples: Samples, train: Samples | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Rows that were cut, those that equal another one of the split, and those of evaluation that equal one of `train`.

    Each of these lists is there where it has rows.
    """
    cut = samples.of_rows("num_tokens_cut")
    most_cut = np.argsort(-cut, kind="stable")[:NUM_WORST]
    digests = samples.of_rows("digest")
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[group] < np.arange(len(digests)))[:NUM_WORST]
    lists = {
        "most truncated": [f"{_row(samples, row)}: {cut[row]:,} tokens cut off" for row in most_cut if cut[row]],
        "repeated": [f"{_row(samples, row)}: equals {_row(samples, first[group[row]])}" for row in repeated],
    }
    if train is not None:
        train_digests = train.of_rows("digest")
        shared = np.flatnonzero(np.isin(digests, train_digests))[:NUM_WORST]
        lists["also in the training data"] = [
            f"{_row(samples, row)}: equals {_row(train, np.argmax(train_digests == digests[row]))}" for row in shared
        ]
    yield from ((name, tuple(lines)) for name, lines in lists.items() if lines)


def _row(samples: Samples, row: int) -> str:
    """Where a row stands."""
    return str(samples.take_rows([row])[0].source)


def dropped_rows(report: DataReport, data: PreparedData) -> Iterator[DroppedRows]:
    """How many rows each kind of reason dropped, with the first of them."""
    examples: dict[str, list[str]] = {reason: [] for reason in report.dropped_by_reason}
    for failure in _failures(report, data):
        listed = examples[reason_category(failure.reason)]
        if len(listed) < NUM_EXAMPLES:
            listed.append(str(failure))
    for reason, count in report.dropped_by_reason.items():
        yield DroppedRows(reason, count, tuple(examples[reason]))


def _failures(report: DataReport, data: PreparedData) -> Iterable[Failure]:
    """All dropped rows of a split; its report may hold the first of them alone."""
    if report.rows_dropped == len(report.failures):
        return report.failures
    files = {file.path for file in report.files}
    return (
        failure
        for failure in data.failures()
        if failure.source.file in files and reason_category(failure.reason) in report.dropped_by_reason
    )

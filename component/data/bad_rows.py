"""Whether a split has rows that can be used, and not too many that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.report import DataReport, describe_reasons
from component.data.rows import Failure
from component.registry import TRUNCATIONS, row_kind_of

NUM_SHOWN = 5
#: What lists the bad rows of a run.
WHOLE_LIST = "python script/inspect_data.py --train_args_file CONFIG --failures FILE"
#: The reason that encoders give for rows over max_seq_length, without its numbers.
OVER_LONG = "over max_seq_length"


def check_enough(data: DataSection, key: str, report: DataReport) -> None:
    """Refuse a split without usable rows, or with more bad ones than `max_bad_rows` allows.

    Args:
        data: the config's data section.
        key: that names the split's files.
        report: on the split.

    Raises:
        DataError: the first bad rows follow the summary, one line each.
    """
    bad = report.rows_dropped
    if not report.rows_read:
        entries = ", ".join(source.entry for source in report.sources)
        raise DataError(f"{key}: {entries} holds no rows; put data there or name another file")
    share = bad / report.rows_read
    if report.rows_used and share <= data.max_bad_rows:
        return
    summary = count_bad(bad, report.rows_read, report.dropped_by_reason)
    examples = first_bad(report.failures, bad, whole_list=WHOLE_LIST)
    remedies = _remedies(data, report)
    if not report.rows_used:
        raise DataError(f"{key}: no usable row: {summary}; {', or '.join(remedies)}", *examples)
    raise DataError(
        f"{key}: {summary}, a share of {share:.4f}; max_bad_rows allows {data.max_bad_rows:g}: "
        f"{', '.join(remedies)}, or raise max_bad_rows",
        *examples,
    )


def count_bad(num_bad: int, num_read: int, dropped_by_reason: Mapping[str, int]) -> str:
    """How many rows are bad, and why: `2 of 100 rows cannot be used (1 bad JSON, 1 empty answer)`."""
    return f"{num_bad:,} of {num_read:,} rows cannot be used ({describe_reasons(dropped_by_reason)})"


def first_bad(failures: Sequence[Failure], num_bad: int, *, whole_list: str | None) -> list[str]:
    """The first bad rows, a line each, and how many there are more.

    Args:
        failures: the bad rows, or the first of them.
        num_bad: of all bad rows.
        whole_list: the command or option that writes them all.
    """
    lines = [str(failure) for failure in failures[:NUM_SHOWN]]
    more = num_bad - len(lines)
    if not more:
        return lines
    return [*lines, f"and {more:,} more" + (f"; {whole_list} lists all" if whole_list else "")]


def _remedies(data: DataSection, report: DataReport) -> list[str]:
    """What mends the rows, that which mends most of them first."""
    kinds = dict.fromkeys(reason == OVER_LONG for reason in report.dropped_by_reason)
    return [_mend_length(data) if is_over_long else "correct the data" for is_over_long in kinds]


def _mend_length(data: DataSection) -> str:
    choices = TRUNCATIONS.get(row_kind_of(data.task_type), ())
    ways = [way for way in choices if way not in ("drop", "error", data.truncation)]
    return "raise max_seq_length" + (f" or set truncation ({', '.join(ways)})" if ways else "")

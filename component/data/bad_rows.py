"""Whether a split has rows that can be used, and not too many that cannot."""

from __future__ import annotations

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.report import DataReport, describe_reasons

NUM_SHOWN = 5
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
    reasons = describe_reasons(report.dropped_by_reason)
    summary = f"{bad:,} of {report.rows_read:,} rows cannot be used ({reasons})"
    examples = [str(failure) for failure in report.failures[:NUM_SHOWN]]
    if not report.rows_used:
        raise DataError(f"{key}: no usable row: {summary}; {_remedy(report)}", *examples)
    raise DataError(
        f"{key}: {summary}, a share of {share:.4f}; max_bad_rows allows {data.max_bad_rows:g}: "
        f"{_remedy(report)}, or raise max_bad_rows",
        *examples,
    )


def _remedy(report: DataReport) -> str:
    """What mends most of the rows."""
    most = next(iter(report.dropped_by_reason), "")
    if most == OVER_LONG:
        return "raise max_seq_length, or set truncation (keep_start, keep_end, split_turns)"
    return "correct the data"

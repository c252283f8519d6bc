"""Which format the first rows of a file have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from component.config.errors import DataError
from component.data.formats.interface import each_format

#: How many rows of a file detection looks at.
NUM_ROWS = 20

_KIND_WORDS = {"messages": "conversations", "text": "plain text"}


def detect_format(records: Sequence[Mapping[str, Any]], row_kind: str, file: str) -> str:
    """Return the format that all recognisable rows agree on.

    Args:
        records: the first rows of a file.
        row_kind: what the task trains on, "messages" or "text".
        file: its name, for the message.

    Raises:
        DataError: no format, several formats, or one that the task cannot use.
    """
    seen = [{name for name, format in each_format() if format.looks_like(record)} for record in records]
    seen = [names for names in seen if names]
    kinds = {name: format.row_kind for name, format in each_format()}
    choices = ", ".join(name for name in kinds if kinds[name] == row_kind)
    if not seen:
        raise DataError(f"{file}: data_format: no known format, {_describe_keys(records)}; use one of {choices}")
    usable = {name for name in set.intersection(*seen) if kinds[name] == row_kind}
    if len(usable) == 1:
        return usable.pop()
    found = sorted(set.union(*seen))
    if not any(kinds[name] == row_kind for name in found):
        raise DataError(
            f"{file}: data_format: the rows look like {' and '.join(found)}, which this task cannot use; "
            f"give it one of {choices}, or set task_type: {'sft' if row_kind == 'text' else 'pretrain'}"
        )
    raise DataError(
        f"{file}: data_format: the first rows look like {' and '.join(found)}; "
        "set data_format to the one that is meant, or put each format in a file of its own"
    )


def check_format(name: str, records: Sequence[Mapping[str, Any]], row_kind: str, file: str) -> None:
    """Check a format that the config names against the first rows.

    Raises:
        DataError: the task cannot use it, or none of the rows has it and all of them have another.
    """
    formats = dict(each_format())
    if formats[name].row_kind != row_kind:
        choices = ", ".join(other for other in formats if formats[other].row_kind == row_kind)
        held, needed = (_KIND_WORDS.get(kind, kind) for kind in (formats[name].row_kind, row_kind))
        raise DataError(f"data_format: {name} holds {held}, this task needs {needed}: one of {choices}")
    if not records or any(formats[name].looks_like(record) for record in records):
        return
    likely = [other for other, format in formats.items() if other != name and all(map(format.looks_like, records))]
    if likely:
        raise DataError(
            f"{file}: data_format: the rows are not {name}; this looks like {likely[0]}; "
            f"set data_format: {likely[0]}, or auto"
        )


def _describe_keys(records: Sequence[Mapping[str, Any]]) -> str:
    """What the rows hold instead, in words."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    if "chosen" in keys and "rejected" in keys:
        return "the rows have chosen and rejected, which is preference data"
    return f"the rows have the keys {', '.join(keys[:8])}" if keys else "no row can be read"

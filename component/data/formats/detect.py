"""Which format the first rows of a file have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from component.config.errors import DataError
from component.data.formats.fields import likely_format
from component.data.formats.interface import GUARDED_KINDS, KIND_TASKS, each_format

#: How many rows of a file detection looks at.
NUM_ROWS = 20

_KIND_WORDS = {
    "messages": "conversations",
    "text": "plain text",
    "preference": "pairs of a chosen and a rejected answer",
    "labelled": "answers with a label",
    "prompt": "prompts without answers",
}


def detect_format(records: Sequence[Mapping[str, Any]], row_kind: str, file: str) -> str:
    """Return the format of the task's kind that all rows which look like any of that kind agree on.

    A row that lacks a key of it looks like nothing, or like less than the others do: it has no say, and is a bad row.

    Args:
        records: the first rows of a file.
        row_kind: what the task trains on, such as "messages" or "text".
        file: its name, for the message.

    Raises:
        DataError: no format, several formats, or one that the task cannot use.
    """
    formats = dict(each_format())
    seen = [{name for name, format in formats.items() if format.looks_like(record)} for record in records]
    seen = [names for names in seen if names]
    choices = _choices(row_kind)
    if not seen:
        raise DataError(f"{file}: data_format: no known format, {_describe_keys(records)}; use one of {choices}")
    kinds = {name: format.row_kind for name, format in formats.items()}
    of_kind = [usable for names in seen if (usable := {name for name in names if kinds[name] == row_kind})]
    usable = set.intersection(*of_kind) if of_kind else set()
    counts = Counter(name for names in seen for name in names)
    common = [name for name in kinds if 2 * counts[name] > len(seen)]
    guarded = [name for name in common if kinds[name] in GUARDED_KINDS]
    if guarded and row_kind == "messages":
        others = sorted(usable.intersection(common))
        way_out = f", or data_format: {others[0]} to train on its answers all the same" if others else ""
        raise DataError(
            f"{file}: data_format: the rows look like {guarded[0]}, which this task cannot use; "
            f"set task_type: {KIND_TASKS[kinds[guarded[0]]]}{way_out}"
        )
    if len(usable) == 1:
        return usable.pop()
    found = [name for name in kinds if name in set.union(*seen)]
    if not any(kinds[name] == row_kind for name in found):
        # Anything with a prompt looks like prompt_only, which is the answer only when nothing else is.
        likely = [name for name in found if kinds[name] != "prompt"] or found
        raise DataError(
            f"{file}: data_format: the rows look like {' and '.join(likely)}, which this task cannot use; "
            f"give it one of {choices}, or set task_type: {KIND_TASKS.get(kinds[likely[0]], kinds[likely[0]])}"
        )
    found = [name for name in found if kinds[name] == row_kind]
    raise DataError(
        f"{file}: data_format: the first rows look like {' and '.join(sorted(found))}; "
        "set data_format to the one that is meant, or put each format in a file of its own"
    )


def check_format(name: str, records: Sequence[Mapping[str, Any]], row_kind: str, file: str) -> None:
    """Check a format that the config names against the first rows.

    Raises:
        DataError: the task cannot use it, or none of the rows has it and all of them have another.
    """
    formats = dict(each_format())
    if formats[name].row_kind != row_kind:
        held, needed = (_KIND_WORDS.get(kind, kind) for kind in (formats[name].row_kind, row_kind))
        raise DataError(f"data_format: {name} holds {held}, this task needs {needed}: one of {_choices(row_kind)}")
    if not records or any(formats[name].looks_like(record) for record in records):
        return
    likely = {likely_format(record, name) for record in records}
    other = likely.pop() if len(likely) == 1 else None
    if other:
        fix = f"set data_format: {other}, or auto"
        if formats[other].row_kind != row_kind:
            fix = f"set task_type: {KIND_TASKS.get(formats[other].row_kind, formats[other].row_kind)}"
        raise DataError(f"{file}: data_format: the rows are not {name}; this looks like {other}; {fix}")


def _choices(row_kind: str) -> str:
    return ", ".join(name for name, format in each_format() if format.row_kind == row_kind)


def _describe_keys(records: Sequence[Mapping[str, Any]]) -> str:
    """What the rows hold instead, in words."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    return f"the rows have the keys {', '.join(keys[:8])}" if keys else "no row can be read"

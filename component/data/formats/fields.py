"""Reading the keys of records and turns: what is missing, misspelt or not text becomes a reason."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from component.data.formats.interface import GUARDED_KINDS, KIND_TASKS, each_format, load_format
from component.data.json_records import RecordDecoder
from component.data.rows import RowError

_KINDS = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number", bool: "a boolean"}


def kind_of(value: Any) -> str:
    """The kind of a JSON value, in words."""
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def read_text(value: Any, where: str) -> str:
    """Return text content as it was written; a list of text parts is joined.

    Args:
        value: the content.
        where: what it is the content of, for the reason.

    Raises:
        RowError: it is null, not text, or has a part that is not text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if len(value) > 1 and all(isinstance(part, str) for part in value):
            # Several answers to choose from look so too; joined, they would be learned as one.
            raise RowError(f"content is not text: {where} is a list of {len(value)} texts")
        return "".join(_read_part(part, where) for part in value)
    if value is None:
        raise RowError(f"null content: {where}")
    raise RowError(f"content is not text: {where} is {kind_of(value)}")


def _read_part(part: Any, where: str) -> str:
    """Return the text of one part of a list content."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise RowError(f"content is not text: {where} has {kind_of(part)} among its parts")
    if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        raise RowError(f"content is not text: {where} has a part of type {part.get('type')!r}")
    return part["text"]


def is_absent(record: Mapping[str, Any], key: str) -> bool:
    """Whether a record has nothing under a key: none, or what a table holds in a column of other rows' form."""
    value = record.get(key)
    return value is None or value == ""


def read_optional_text(record: Mapping[str, Any], key: str) -> str | None:
    """Return the text of a column, None where it is absent, null or empty.

    Raises:
        RowError: it is something else.
    """
    return None if is_absent(record, key) else read_text(record[key], key)


def read_list(record: Mapping[str, Any], key: str, format_name: str, known: Sequence[str]) -> list[Any]:
    """Return the list that a record of a format stands on.

    Args:
        record: the record.
        key: the list's key.
        format_name: the format that is reading, for the hint at another one.
        known: the format's keys.

    Raises:
        RowError: it is missing, null, empty or no list.
    """
    require_key(record, key, format_name, known)
    return check_list(record[key], key)


def check_list(value: Any, key: str) -> list[Any]:
    """Return a value if it is a list with something in it, or the JSON text of one, as tables hold it.

    Raises:
        RowError: it is null, empty or no list.
    """
    if value is None:
        raise RowError(f"null {key}")
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json_text(value, key)
    if not isinstance(value, list):
        raise RowError(f"{key} is not a list: {kind_of(value)}")
    if not value:
        raise RowError(f"empty {key}")
    return value


def require_key(record: Mapping[str, Any], key: str, format_name: str, known: Sequence[str]) -> None:
    """Check that a record has a key.

    Raises:
        RowError: it has not; the reason names a misspelt key, or the format that the record looks like.
    """
    if key in record:
        return
    likely = likely_format(record, format_name)
    kind, likely_kind = (None if name is None else load_format(name).row_kind for name in (format_name, likely))
    if likely and likely_kind == kind:
        raise RowError(f"missing {key}: this looks like {likely}; set data_format: {likely}")
    written = difflib.get_close_matches(key, [name for name in record if name not in known], n=1, cutoff=0.7)
    if written:
        raise RowError(f"missing {key}: the row has {written[0]!r}; did you mean {key}?")
    if likely:
        tasks = KIND_TASKS.get(likely_kind, f"one that trains on {likely_kind}")
        raise RowError(f"missing {key}: this looks like {likely}; set task_type: {tasks}")
    found = ", ".join(list(record)[:8]) or "nothing"
    raise RowError(f"missing {key}: the row has {found}")


def likely_format(record: Mapping[str, Any], format_name: str) -> str | None:
    """The format, other than that one, that a record looks like; one of the same kind of rows if there is any.

    Before all comes one whose rows hold answers that are not to be learned, as others would learn them. Anything with a
    prompt looks like prompt_only, so that this is never the answer.
    """
    formats = dict(each_format())
    kind = formats[format_name].row_kind
    others = [
        name
        for name, other in formats.items()
        if name != format_name and other.row_kind != "prompt" and other.looks_like(record)
    ]
    kinds = {name: formats[name].row_kind for name in others}
    return min(others, key=lambda name: (kinds[name] not in GUARDED_KINDS, kinds[name] != kind), default=None)


def split_columns(record: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the columns that a format does not read, and a notice for each that seems a misspelt key of it."""
    columns = {key: value for key, value in record.items() if key not in known and not is_absent(record, key)}
    if not columns:
        return columns, ()
    absent = tuple(key for key in known if key not in record)
    notices = []
    for key in columns:
        if meant := _meant_key(key, absent):
            notices.append(f"key {key!r} is not read; did you mean {meant}?")
    return columns, tuple(notices)


@functools.lru_cache(maxsize=4096)  # the same few columns come with every row
def _meant_key(key: str, absent: tuple[str, ...]) -> str | None:
    """The absent key that `key` seems to be a misspelling of."""
    return next(iter(difflib.get_close_matches(key, absent, n=1, cutoff=0.75)), None)


def check_turn_keys(
    turn: Mapping[str, Any], *, required: Iterable[str], known: Sequence[str], where: str
) -> tuple[str, ...]:
    """Check the keys of one turn.

    Args:
        turn: the turn.
        required: keys that it must have.
        known: all keys that its format reads.
        where: the turn, for the reason.

    Returns:
        A notice for each key that is not read.

    Raises:
        RowError: a required key is missing, or a key seems misspelt.
    """
    unread = [key for key in turn if key not in known]
    if unread:
        absent = tuple(key for key in known if key not in turn)
        for key in unread:
            if meant := _meant_key(key, absent):
                raise RowError(f"unknown turn key: {key!r} in {where}; did you mean {meant}?")
    for key in required:
        if key not in turn:
            found = ", ".join(list(turn)[:8]) or "nothing"
            raise RowError(f"missing turn key: {key} in {where}, which has {found}")
    return tuple(f"turn key {key!r} is not read" for key in unread)


def read_weight(turn: Mapping[str, Any], place: str) -> int:
    """Return the weight of a turn, 1 where it has none.

    Raises:
        RowError: it is not 0 or 1.
    """
    weight = turn.get("weight")
    if weight is None:
        return 1
    if isinstance(weight, bool) or weight not in (0, 1):
        raise RowError(f"weight is neither 0 nor 1: {weight!r} in {place}")
    return int(weight)


def read_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return tool definitions from a list or from its JSON text; null and empty mean none.

    Raises:
        RowError: it is not a list of objects.
    """
    if isinstance(value, str):
        value = parse_json_text(value, "tools") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError("tools are not a list of objects")
    return tuple(value)


def parse_json_text(text: str, what: str, place: str = "") -> Any:
    """Parse JSON that a record holds as text.

    Args:
        text: the JSON.
        what: what it should be, for the reason.
        place: the turn that holds it, for the reason.

    Raises:
        RowError: it is not JSON, or has what a record may not have either: half a surrogate pair, a key twice.
    """
    try:
        value, fault = RecordDecoder().decode_nested(text)
    except ValueError:
        raise RowError(f"bad JSON in {what}" + (f": {place}" if place else "")) from None
    if fault is not None:
        raise RowError(f"{fault}, in {what}" + (f" of {place}" if place else ""))
    return value

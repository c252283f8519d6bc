"""JSON-like values whose texts remember their origin, and the ways in which a template turns such a value into text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from component.data.traced_text import TEMPLATE, TracedText, join_traced, origin_of

# What a placeholder reads as in JSON and in Python's notation. No key is ever written so.
_IN_JSON = re.compile(r'"\\u0000(\d+)\\u0000"')
_IN_REPR = re.compile(r"'\\x00(\d+)\\x00'")


def trace(value: Any, origin: str) -> Any:
    """A copy of a JSON-like value in which every text, except mapping keys, carries `origin`."""
    if isinstance(value, str):
        return TracedText(value, origin * len(value))
    if isinstance(value, Mapping):
        return {key: trace(item, origin) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [trace(item, origin) for item in value]
    return value


def origins_within(value: Any) -> set[str]:
    """The origins of all texts in a JSON-like value, `TEMPLATE` left out."""
    if isinstance(value, str):
        return set(origin_of(value)) - {TEMPLATE}
    if isinstance(value, Mapping):
        return set().union(*(origins_within(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(origins_within(item) for item in value))
    return set()


def write_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The `tojson` of transformers' templates, with origins: JSON of one origin is of that origin throughout."""
    write = partial(json.dumps, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _write(value, write, _IN_JSON)


def write_text(value: Any) -> str:
    """`str(value)` with origins, as the template's `string` filter and `{{ value }}` write it."""
    if isinstance(value, str):
        return value
    return _write(value, str, _IN_REPR) if isinstance(value, Mapping | list | tuple) else str(value)


def _write(value: Any, write: Callable[[Any], str], placeholder: re.Pattern[str]) -> str:
    text = write(value)
    origins = origins_within(value)
    if not origins:
        return text
    if len(origins) == 1:
        return TracedText(text, origins.pop() * len(text))
    texts: list[str] = []
    pieces = placeholder.split(write(_with_placeholders(value, texts)))
    inner = repr if write is str else write
    pieces[1::2] = [_written(texts[int(number)], inner) for number in pieces[1::2]]
    joined = join_traced("", pieces)
    return joined if joined == text else text


def _with_placeholders(value: Any, texts: list[str]) -> Any:
    """A copy in which each text is the number of its place in `texts`, between two characters that no data holds."""
    if isinstance(value, str):
        texts.append(value)
        return f"\0{len(texts) - 1}\0"
    if isinstance(value, Mapping):
        return {key: _with_placeholders(item, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_placeholders(item, texts) for item in value]
    return value


def _written(text: str, write: Callable[[str], str]) -> str:
    """One text in quotes; of its own origin where it has only one."""
    written, origins = write(text), set(origin_of(text))
    return TracedText(written, origins.pop() * len(written)) if len(origins) == 1 else written

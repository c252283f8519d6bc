"""Values of the command line that begin as a list or a mapping and are none, for the keys that take one."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from component.config.coerce import describe_type
from component.config.nodes import excerpt
from component.config.schema import key_types, schema_fields
from component.config.yaml_text import explain_scalar

_BRACKETS = {list: "[", dict: "{"}


def explain_broken(key: str, text: str, value: Any) -> tuple[str, str] | None:
    """Say what is wrong with a list or mapping that cannot be read, and what to write instead.

    Else a key that takes one text for a list has the whole of `["a", "b"` as its only item. A key that takes text has
    what is given, and so has one that names files where a bracket is closed early: `[ab]*.jsonl` is a pattern.

    Args:
        key: a key of the schema, or one that it does not have, of which nothing is wrong here.
        text: what the command line gives it.
        value: what `parse_scalar` made of that.

    Returns:
        None where the text is read as what it begins as, or is no beginning of what the key takes.
    """
    bare = text.strip()
    annotation = next((kind for kind in _members(key) if bare.startswith(_BRACKETS[get_origin(kind)])), None)
    if annotation is None or not isinstance(value, str):
        return None
    if schema_fields()[key].metadata["path"] and "]" in bare[:-1]:
        return None
    what = f"{excerpt(bare)} cannot be read as a {describe_type(annotation)}: {explain_scalar(bare)}"
    return what, f"write '{key}={_example(annotation)}', with texts in double quotes"


def _members(key: str) -> list[Any]:
    """The lists and mappings among what a key takes; none where it takes text as well."""
    annotation = key_types().get(key)
    is_union = get_origin(annotation) in (Union, types.UnionType)
    members = get_args(annotation) if is_union else (annotation,)
    return [] if str in members else [member for member in members if get_origin(member) in _BRACKETS]


def _example(annotation: Any) -> str:
    if get_origin(annotation) is dict:
        return '{"key": "value"}'
    return '["one", "two"]' if get_args(annotation) == (str,) else "[1, 2]"

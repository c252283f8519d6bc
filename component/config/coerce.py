"""The one table of how a value from JSON, YAML or the command line becomes what a field's annotation asks for."""

from __future__ import annotations

import difflib
import math
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from component.config.nodes import excerpt, spell
from component.config.scalars import number_from_text

_Arguments = tuple[Any, ...]


class CoercionError(ValueError):
    """A value that a field cannot take.

    Args:
        what: what was expected and what was given, such as `expected an integer, got "eight"`.
        fix: what to write instead.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


def coerce(value: Any, annotation: Any) -> Any:
    """Return `value` as the type that `annotation` names.

    Text that spells a number, true or false is taken as that where the field wants it, and 8.0 as 8; nothing else
    is converted, and a boolean is never a number. Containers are copied.

    Args:
        value: what a file, the command line or a caller gave: built-in scalars, lists and dicts.
        annotation: bool, int, float, str, None, Any, Literal, list, dict, or a union of those.

    Raises:
        CoercionError: the value does not fit.
        KeyError: an annotation of another kind.
    """
    return _kind(annotation).coerce(value, get_args(annotation))


def describe_type(annotation: Any) -> str:
    """Return the type in words for the reference page, such as `integer` or `one of: nf4, fp4`."""
    return _kind(annotation).describe(get_args(annotation))


def json_schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON Schema of the values that a field of this annotation takes."""
    return _kind(annotation).schema(get_args(annotation))


def _to_bool(value: Any, arguments: _Arguments) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else spell(value)
    if isinstance(value, str) and text in ("true", "false"):
        return text == "true"
    meant = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}.get(text)
    fix = f"write {meant}" if meant else "write true or false"
    raise _mismatch(
        value, bool, "write true or false, or remove the key to take the default" if text == "auto" else fix
    )


def _to_int(value: Any, arguments: _Arguments) -> int:
    number = _number(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, int):
        return number
    raise _mismatch(value, int, "write a number such as 8" if number is None else "write a whole number such as 8")


def _to_float(value: Any, arguments: _Arguments) -> float:
    number = _number(value)
    if isinstance(number, float) and math.isfinite(number):
        return number
    if isinstance(number, int):
        try:
            return float(number)
        except OverflowError:
            pass
    raise _mismatch(value, float, "write a finite number such as 0.1")


def _number(value: Any) -> int | float | None:
    """The number that a value is or spells; a boolean is none."""
    if isinstance(value, str):
        return number_from_text(value.strip() or "-")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _to_text(value: Any, arguments: _Arguments) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None:
        raise _mismatch(value, str, "write a text, or remove the key to take the default")
    is_scalar = isinstance(value, bool | int | float)
    raise _mismatch(value, str, "put it in double quotes" if is_scalar else "write one text in double quotes")


def _to_null(value: Any, arguments: _Arguments) -> None:
    if value is not None:
        raise _mismatch(value, None, "write null, or remove the key")


def _to_choice(value: Any, choices: _Arguments) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    for kind in (int, float):
        same_kind = [choice for choice in choices if type(choice) is kind]
        number = _number(value)
        if number is not None and number in same_kind:
            return kind(number)
    text = value.strip() if isinstance(value, str) else spell(value)
    if isinstance(value, str) and text in choices:
        return text
    raise _mismatch(value, Literal[choices], _choice_fix(text, choices))


def _choice_fix(text: str, choices: Sequence[Any]) -> str:
    """Did-you-mean where a choice is close."""
    by_spelling = {name.lower(): name for name in map(_spell_choice, choices)}
    close = difflib.get_close_matches(text.lower(), by_spelling, n=1)
    return f"did you mean {by_spelling[close[0]]}?" if close else "choose one of them"


def _spell_choice(choice: Any) -> str:
    return choice if isinstance(choice, str) else spell(choice)


def _to_list(value: Any, arguments: _Arguments) -> list[Any]:
    annotation = list[arguments] if arguments else list
    if not isinstance(value, list | tuple):
        is_scalar = isinstance(value, str | int | float)
        raise _mismatch(value, annotation, f"write [{spell(value)}]" if is_scalar else "write a list in [ ]")
    items = []
    for number, item in enumerate(value, start=1):
        try:
            items.append(coerce(item, arguments[0]) if arguments else item)
        except CoercionError as error:
            raise CoercionError(f"item {number}: {error.what}", error.fix) from None
    return items


def _to_dict(value: Any, arguments: _Arguments) -> dict[str, Any]:
    annotation = dict[arguments] if arguments else dict
    if not isinstance(value, dict):
        raise _mismatch(value, annotation, 'write a mapping such as {"key": "value"}')
    entries = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise CoercionError(f"expected text as key, got {spell(key)}", "put the key in double quotes")
        try:
            entries[key] = coerce(item, arguments[1]) if arguments else item
        except CoercionError as error:
            raise CoercionError(f"{excerpt(key)}: {error.what}", error.fix) from None
    return entries


def _to_union(value: Any, members: _Arguments) -> Any:
    """The first member that takes the value as it is, else the first that can convert it.

    Members that convert to float come last, so that "8" for `float | int` is 8.
    """
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    converted, errors = [], {}
    for member in sorted(members, key=lambda member: member is float):
        try:
            result = coerce(value, member)
        except CoercionError as error:
            errors[member] = error
            continue
        if type(result) is type(value) and result == value:
            return result
        converted.append(result)
    if converted:
        return converted[0]
    raise _union_error(value, members, errors)


def _union_error(value: Any, members: _Arguments, errors: dict[Any, CoercionError]) -> CoercionError:
    """The one error to show: that of the only member or of the one of the value's shape, else one that names all."""
    if len(members) == 1:
        return errors[members[0]]
    for member in members:
        if isinstance(value, list | dict) and get_origin(member) is type(value):
            return errors[member]
    fixes = {member: error.fix for member, error in errors.items()}
    close = next((fix for fix in fixes.values() if fix.startswith("did you mean")), None)
    return _mismatch(value, Union[members], close or fixes[members[0]])  # noqa: UP007


def _keep(value: Any, arguments: _Arguments) -> Any:
    return value


def _mismatch(value: Any, annotation: Any, fix: str) -> CoercionError:
    expected = _either(_kind(annotation).expected(get_args(annotation)))
    return CoercionError(f"expected {expected}, got {spell(value)}", fix)


def _either(alternatives: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(alternatives[:-1]), alternatives[-1])))


def _expect_members(members: _Arguments) -> list[str]:
    return [text for member in members for text in _kind(member).expected(get_args(member))]


def _item_noun(annotation: Any) -> str:
    return "" if annotation is Any else _kind(annotation).plural or describe_type(annotation)


def _describe_list(arguments: _Arguments) -> str:
    noun = _item_noun(arguments[0]) if arguments else ""
    return f"list of {noun}" if noun else "list"


def _describe_dict(arguments: _Arguments) -> str:
    noun = _item_noun(arguments[1]) if arguments else ""
    return f"mapping of text to {noun}" if noun else "mapping"


def _schema_list(arguments: _Arguments) -> dict[str, Any]:
    return {"type": "array", **({"items": json_schema(arguments[0])} if arguments else {})}


def _schema_dict(arguments: _Arguments) -> dict[str, Any]:
    return {"type": "object", **({"additionalProperties": json_schema(arguments[1])} if arguments else {})}


@dataclass(frozen=True)
class _Kind:
    """What to do with annotations of one kind; each function takes the arguments of the annotation."""

    coerce: Callable[[Any, _Arguments], Any]
    describe: Callable[[_Arguments], str]
    expected: Callable[[_Arguments], Sequence[str]]
    schema: Callable[[_Arguments], dict[str, Any]]
    plural: str = ""


def _scalar(coercer: Callable[[Any, _Arguments], Any], noun: str, expected: str, type_name: str, plural: str) -> _Kind:
    alternatives = expected.split("|")
    return _Kind(coercer, lambda _: noun, lambda _: alternatives, lambda _: {"type": type_name}, plural)


_UNION = _Kind(
    _to_union,
    lambda members: " or ".join(describe_type(member) for member in members),
    _expect_members,
    lambda members: {"anyOf": [json_schema(member) for member in members]},
)

_KINDS: dict[Any, _Kind] = {
    bool: _scalar(_to_bool, "true or false", "true|false", "boolean", "true or false"),
    int: _scalar(_to_int, "integer", "an integer", "integer", "integers"),
    float: _scalar(_to_float, "number", "a number", "number", "numbers"),
    str: _scalar(_to_text, "text", "text", "string", "text"),
    type(None): _scalar(_to_null, "null", "null", "null", "null"),
    list: _Kind(_to_list, _describe_list, lambda arguments: [f"a {_describe_list(arguments)}"], _schema_list),
    dict: _Kind(_to_dict, _describe_dict, lambda arguments: [f"a {_describe_dict(arguments)}"], _schema_dict),
    Literal: _Kind(
        _to_choice,
        lambda choices: f"one of: {', '.join(map(_spell_choice, choices))}",
        lambda choices: [spell(choice) for choice in choices],
        lambda choices: {"enum": list(choices)},
    ),
    Union: _UNION,
    types.UnionType: _UNION,
    Any: _Kind(_keep, lambda _: "anything", lambda _: ["anything"], lambda _: {}),
}


def _kind(annotation: Any) -> _Kind:
    return _KINDS[type(None) if annotation is None else get_origin(annotation) or annotation]

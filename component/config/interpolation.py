"""Interpolations: `${other_key}` and `${oc.env:NAME}`, resolved by OmegaConf."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from component.config.errors import Problem
from component.config.nodes import Node, excerpt, plain

_REFERENCE = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*\}")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:[^${}]*\}")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)")
_ESCAPED = re.compile(r"\\+\$\{")


def has_interpolation(value: Any) -> bool:
    """Whether a value, or a text inside it, holds an interpolation."""
    return any("${" in text for text in texts_of(value))


def reads_environment(key: str, values: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    """Whether the value of `key` depends on an environment variable, through however many other keys."""
    if key in seen or key not in values:
        return False
    texts = list(texts_of(values[key]))
    if any(_ENVIRONMENT.search(text) for text in texts):
        return True
    references = {match.split(".")[0] for text in texts for match in _REFERENCE.findall(text)}
    return any(reads_environment(reference, values, seen | {key}) for reference in references)


def resolve_interpolations(
    nodes: Mapping[str, Node], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """Resolve the interpolations of all values.

    Args:
        nodes: the merged values as written.
        defaults: values of the keys that no layer sets, for references to them.

    Returns:
        The plain values, without those that could not be resolved, and the problems.
    """
    written = {key: plain(node) for key, node in nodes.items()}
    if not any(has_interpolation(value) for value in written.values()):
        return written, []
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    container = OmegaConf.create(defaults)
    for key, value in written.items():
        if not all(map(_is_plain, texts_of(value))):
            fix = "write ${key} or ${oc.env:NAME}, and \\${ for the plain characters"
            problems.append(_problem(nodes[key], key, value, "is not an interpolation that a config can hold", fix))
            continue
        try:
            container[key] = value
        except OmegaConfBaseException as error:
            problems.append(_problem(nodes[key], key, value, *_explain(error)))
    unreadable = {problem.key for problem in problems}
    for key, value in written.items():
        if key in unreadable:
            continue
        try:
            item = OmegaConf.select(container, key) if has_interpolation(value) else value
            values[key] = OmegaConf.to_container(item, resolve=True) if OmegaConf.is_config(item) else item
        except OmegaConfBaseException as error:
            problems.append(_problem(nodes[key], key, value, *_explain(error)))
    return values, problems


def _is_plain(text: str) -> bool:
    """Whether every interpolation of a text is `${key}` or `${oc.env:NAME}`.

    OmegaConf knows more forms (other resolvers, nested and relative ones); through them the value of an environment
    variable could come into another key unseen.
    """
    rest = _REFERENCE.sub("", _ENVIRONMENT.sub("", _ESCAPED.sub("", text)))
    return "${" not in rest


def _explain(error: OmegaConfBaseException) -> tuple[str, str]:
    message = str(error).splitlines()[0]
    variable = re.search(r"Environment variable '([^']+)' not found", message)
    if variable:
        name = variable.group(1)
        return (
            f"needs the environment variable {name}, which is not set",
            f"set it, or write ${{oc.env:{name},default}}",
        )
    if isinstance(error, InterpolationKeyError):
        return "refers to a key that does not exist", "refer to a key of this config, or to ${oc.env:NAME}"
    if message.startswith("Recursive"):
        return "refers to itself", "break the circle of references"
    # the message may hold the value of a variable
    return "cannot be resolved", "write ${key} or ${oc.env:NAME}"


def _problem(node: Node, key: str, value: Any, what: str, fix: str) -> Problem:
    shown = next(text for text in texts_of(value) if "${" in text)
    return Problem(node.place, key, f"{excerpt(shown, 80)} {what}", fix)


def environment_values(written: Any) -> dict[str, str]:
    """The value of each environment variable that a config refers to -> the reference as it is written."""
    names = {name for text in texts_of(written) for name in _VARIABLE.findall(text)}
    return {os.environ[name]: f"${{oc.env:{name}}}" for name in names if os.environ.get(name)}


def texts_of(value: Any) -> list[str]:
    """All texts in a value, those inside its mappings and lists too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in texts_of(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return []

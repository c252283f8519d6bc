"""Checks of single values: known names, limits, choices, extra arguments."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import MISSING

from component.config.choices import named_choices
from component.config.errors import Problem
from component.config.interpolation import texts_of
from component.config.legacy import FOREIGN, FOREIGN_VALUES
from component.config.nodes import Node, excerpt
from component.config.schema import schema_fields
from component.config.training_arguments_source import installed_training_arguments

#: Lists that may have no entry.
MAY_BE_EMPTY = (
    "accepted_hints", "layers_to_transform", "modules_to_save", "new_tokens", "plugins", "report_to",
    "reward_functions",
)  # fmt: skip

LIMITS = (
    ("minimum", operator.ge, "of at least"),
    ("above", operator.gt, "above"),
    ("maximum", operator.le, "of at most"),
    ("below", operator.lt, "below"),
)


def explain_unknown(key: str, known: Sequence[str]) -> tuple[str, str]:
    """Say what is wrong with a key that the schema does not have, and what to write instead."""
    if key in FOREIGN:
        return "unknown key", FOREIGN[key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if near:
        return "unknown key", f"did you mean {near[0]}?"
    return (
        "unknown key",
        "remove it; docs/config.md lists all keys, extra_training_args takes further Trainer arguments",
    )


def check_limits(values: Mapping[str, Any], nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Numbers that a layer set lie within the limits of their key."""
    fields = schema_fields()
    for key, node in nodes.items():
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        for limit, holds, words in LIMITS:
            bound = fields[key].metadata[limit]
            if bound is not None and not holds(value, bound):
                yield Problem(node.place, key, f"got {value:.12g}", f"use a number {words} {bound:.12g}")


def check_texts(values: Mapping[str, Any], nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Texts that a layer set are not empty, and hold nothing that the system or OmegaConf takes for something else."""
    for key, node in nodes.items():
        value = values.get(key)
        texts = value if isinstance(value, list) else [value]
        if value == [] and key not in MAY_BE_EMPTY or "" in texts:
            yield Problem(node.place, key, "is empty", "write a value, or remove the key")
        if any("\0" in text for text in texts_of(value)):
            yield Problem(node.place, key, "holds a NUL character", "remove it")
        if MISSING in texts_of(value):
            yield Problem(node.place, key, f'"{MISSING}" stands for a missing value', "write the value")


def check_choices(values: Mapping[str, Any], nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Names that a layer set exist in their table."""
    for key, names in named_choices().items():
        if key not in nodes or values.get(key) is None:
            continue
        for value in values[key] if isinstance(values[key], list) else [values[key]]:
            if value in names or not value or (key == "template_name" and value.endswith(".jinja")):
                continue
            beginnings = [name for name in names if len(value) > 2 and name.startswith(value)]
            near = beginnings or difflib.get_close_matches(value, names, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}? " if near else ""
            kind = "a .jinja file or one of" if key == "template_name" else "one of"
            what = f'there is no "{excerpt(value)}"'
            fix = FOREIGN_VALUES.get((key, value), f"{hint}use {kind}: {', '.join(names)}")
            yield Problem(nodes[key].place, key, what, fix)


def check_extra_arguments(values: Mapping[str, Any], nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """extra_training_args holds arguments that the installed TrainingArguments has and that are no keys here."""
    extra = values.get("extra_training_args")
    if not extra:
        return
    installed = installed_training_arguments()
    entries = nodes["extra_training_args"].value
    for name in extra:
        place = entries[name].key_place or entries[name].place
        key = f"extra_training_args.{excerpt(name)}"
        if name in schema_fields():
            yield Problem(place, key, "is a key of its own", f"write {name} at the top level")
        elif installed is not None and name not in installed:
            near = difflib.get_close_matches(name, installed, n=1)
            what = "the installed transformers' TrainingArguments has no such argument"
            yield Problem(place, key, what, f"did you mean {near[0]}?" if near else "remove it")

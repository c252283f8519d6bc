"""A config whose open values have been settled: what was written stays on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from component.config.keys import LANGUAGE_MODEL_TASKS, SHIPPED_TASKS
from component.config.load import Config
from component.config.schema import SECTIONS


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other values of some keys, in every section that reads them; `written` says what was asked."""
    sections = {
        name: replace(getattr(config, name), **own)
        for name, section in SECTIONS.items()
        if (own := {item.name: changes[item.name] for item in fields(section) if item.name in changes})
    }
    return replace(config, values={**config.values, **changes}, **sections)


def without_ignored_packing(config: Config) -> Config:
    """The config with `packing: false` where its task does not read that key, as a base may set it for others.

    Loaders, plans and choices read the key itself. A plugin's task may read it.
    """
    task = config.model.task_type
    if task not in SHIPPED_TASKS or task in LANGUAGE_MODEL_TASKS:
        return config
    return with_values(config, {"packing": False})

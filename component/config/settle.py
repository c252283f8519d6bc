"""A config whose open values have been settled: what was written stays on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from component.config.load import Config, schema_defaults
from component.config.resolve import foreign_keys
from component.config.schema import SECTIONS


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other values of some keys, in every section that reads them; `written` says what was asked."""
    sections = {
        name: replace(getattr(config, name), **own)
        for name, section in SECTIONS.items()
        if (own := {item.name: changes[item.name] for item in fields(section) if item.name in changes})
    }
    return replace(config, values={**config.values, **changes}, **sections)


def without_foreign_values(config: Config) -> Config:
    """The config with the default of every key that is another task's or mode's, as a base may set it for those.

    The notice says of such a key that it is ignored, and loaders, data, plans and choices read the key itself.
    """
    defaults = schema_defaults()
    changes = {key: defaults[key] for key in foreign_keys(config.values) if config.values[key] != defaults[key]}
    return with_values(config, changes) if changes else config

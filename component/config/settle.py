"""A config whose open values have been settled: what was written stays on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

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

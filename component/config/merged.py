"""The merged config as rules over several keys see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from component.config.errors import Place, Problem


class RefusedValueError(Exception):
    """A rule asked for a key whose value was refused already; the rule has nothing to add."""


@dataclass(frozen=True)
class Merged:
    """The merged config as rules see it.

    Attributes:
        values: every key with its value, defaults included; a key whose value was refused is absent.
        written: the values that layers set, before interpolation.
        places: where a key was set; keys left at their default are absent.
        order: the sources, lowest layer first.
        switched_off: switches of other frameworks that are false, and where.
    """

    values: Mapping[str, Any]
    written: Mapping[str, Any]
    places: Mapping[str, Place]
    order: tuple[str, ...]
    switched_off: Mapping[str, Place] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise RefusedValueError(key)
        return self.values[key]

    def is_set(self, key: str) -> bool:
        """Whether a layer set the key, rather than the schema."""
        return key in self.places

    def position(self, key: str) -> tuple[int, Place]:
        """Where the key stands, for sorting: layer by layer, then line and column."""
        place = self.places.get(key, Place(""))
        return (self.order.index(place.source) if place.source in self.order else -1, place)

    def clash(self, first: str, second: str, what: str, fix: str) -> Problem:
        """A problem of two keys, reported at the later one."""
        later = max((first, second), key=self.position)
        return Problem(self.places.get(later, Place("default")), later, what, fix)


Rule = Callable[[Merged], Iterator[Problem]]

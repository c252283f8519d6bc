"""A hint: a choice of the config that works and is seldom meant, with what would be usual."""

from __future__ import annotations

from dataclasses import dataclass

from component.config.errors import Place, Problem


@dataclass(frozen=True)
class Hint:
    """One odd choice. It is no error, and nothing was changed for it.

    Attributes:
        key: of the config; naming it in `accepted_hints` says that the choice is meant.
        what: what is odd.
        fix: what to do.
        place: where the key was set; None for a default, or a fact of the data.
    """

    key: str
    what: str
    fix: str
    place: Place | None = None

    def __str__(self) -> str:
        """As a problem is written, without a place where there is none."""
        text = str(Problem(self.place or Place(""), self.key, self.what, self.fix))
        return text if self.place else text.removeprefix(": ")


def say_rate(value: float) -> str:
    """A small number as people write it: 2e-4, 0.01."""
    if not 0 < value < 1e-3:
        return f"{value:g}"
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"

"""Rewards that compare a completion with the solution of its row."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from component.trainers.rewards.interface import Completion

#: 1,234.5 and -3e-4 are one number each; a sign counts where no digit or letter stands before it.
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|(?<![\w.])-?\.\d+")


@dataclass(frozen=True)
class ExactMatch:
    """1 where the completion is the row's solution, white space at both ends aside; else 0.

    Attributes:
        column: of the row, with the solution: a text, or a number as it is written.
        ignore_case: whether upper and lower case count alike.
    """

    column: str = "solution"
    ignore_case: bool = False

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        found, wanted = completion.text.strip(), str(completion.columns[self.column]).strip()
        if self.ignore_case:
            found, wanted = found.casefold(), wanted.casefold()
        return float(found == wanted)


@dataclass(frozen=True)
class NumericAnswer:
    """1 where the last number of the completion is the last number of the row's solution; else 0.

    So the solutions of GSM8K ("... #### 1,234") and answers in a box or a sentence can be compared as they are.

    Attributes:
        column: of the row, with the solution: a number, or a text with one.
        tolerance: relative difference that counts as equal.
    """

    column: str = "solution"
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance is {self.tolerance:g}; use 0 or more")

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        wanted = last_number(str(completion.columns[self.column]))
        if wanted is None:
            raise ValueError(f"column {self.column} holds no number: {completion.columns[self.column]!r}")
        found = last_number(completion.text)
        return float(found is not None and math.isclose(found, wanted, rel_tol=self.tolerance, abs_tol=self.tolerance))


def last_number(text: str) -> float | None:
    """The last number that a text holds; None where it holds none."""
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None

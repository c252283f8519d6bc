"""What is shown of prepared data: the same facts for a terminal and for the page of a run folder."""

from __future__ import annotations

from dataclasses import dataclass

from component.artifacts.histogram import Bin, LengthPlot

Pieces = tuple[tuple[str, bool], ...]
"""A sample's text in pieces, each supervised or not."""

#: Of a sample with more pieces, those in the middle are not shown.
MAX_PIECES = 12


@dataclass(frozen=True)
class ShownRow:
    """A sample by the row it came from: `source` is file:line."""

    source: str
    num_tokens: int
    num_supervised_tokens: int

    def __str__(self) -> str:
        return f"{self.source}: {say_tokens(self.num_tokens, self.num_supervised_tokens)}"


@dataclass(frozen=True)
class ShownSample:
    """A sample's text.

    Attributes:
        row: where it came from and how long it is.
        parts: one without a name, or those of a pair, such as "chosen" and "rejected".
    """

    row: ShownRow
    parts: tuple[tuple[str, Pieces], ...]


@dataclass(frozen=True)
class DroppedRows:
    """Rows that were dropped for one kind of reason, and the first of them as `file:line: reason`."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SplitFacts:
    """One split of the data.

    Attributes:
        name: "train" or "evaluation".
        numbers: what is counted and said of it: name and value, which may have several lines.
        bins: its samples by length, few enough for text.
        plot: the same, finer.
        longest, least_supervised: samples to look at, the worst first.
        others: further rows to look at, `file:line: why` under what they have in common.
        dropped: most first.
    """

    name: str
    numbers: tuple[tuple[str, str], ...]
    bins: tuple[Bin, ...]
    plot: LengthPlot
    longest: tuple[ShownRow, ...]
    least_supervised: tuple[ShownRow, ...]
    others: tuple[tuple[str, tuple[str, ...]], ...]
    dropped: tuple[DroppedRows, ...]


@dataclass(frozen=True)
class DataFacts:
    """What is shown of prepared data.

    Attributes:
        rendering: what made the tokens and what its self-test has shown: name and value.
        samples: some samples of the training data, or those that were asked for.
        splits: training, and evaluation if there is one.
    """

    rendering: tuple[tuple[str, str], ...]
    samples: tuple[ShownSample, ...]
    splits: tuple[SplitFacts, ...]


def say_tokens(num_tokens: int, num_supervised_tokens: int) -> str:
    """Counts in words: `312 tokens, 40 supervised (12.8%)`."""
    share = f" ({num_supervised_tokens / num_tokens:.1%})" if num_tokens else ""
    return f"{num_tokens:,} tokens, {num_supervised_tokens:,} supervised{share}"


def shorten_pieces(pieces: Pieces) -> Pieces:
    """The pieces without those in the middle, where there are many."""
    if len(pieces) <= MAX_PIECES:
        return pieces
    half = MAX_PIECES // 2
    left_out = f"\n... {len(pieces) - 2 * half:,} more pieces ...\n"
    return (*pieces[:half], (left_out, False), *pieces[-half:])

"""How long samples are: counts by length, as bars of text and as data_lengths.png."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from component.artifacts.plots import EVAL_COLOR, GRID_COLOR, TRAIN_COLOR

if TYPE_CHECKING:
    import numpy as np

FILE_NAME = "data_lengths.png"
#: Of a bar of text that stands for the most samples.
MAX_BAR_LENGTH = 40
MARK_COLOR = "#444444"


@dataclass(frozen=True)
class Bin:
    """How many samples have a length from `first` to `last` tokens, both included."""

    first: int
    last: int
    count: int


@dataclass(frozen=True)
class LengthPlot:
    """What is drawn of a split.

    Attributes:
        bins: of equal width.
        marks: names of lengths that are shown as lines, such as "p50", and the lengths.
    """

    title: str
    bins: tuple[Bin, ...]
    marks: tuple[tuple[str, int], ...]


def length_bins(lengths: np.ndarray, *, max_bins: int) -> tuple[Bin, ...]:
    """Count lengths in bins of one width, which is 1, 2 or 5 times a power of ten and as small as `max_bins` allows.

    Args:
        lengths: tokens of each sample, shape (num_samples,), from 1.

    Returns:
        Bins from that of the shortest sample to that of the longest, empty ones between them included; none for none.

    Example:
        length_bins(np.array([3, 12, 14]), max_bins=2) == (Bin(1, 10, 1), Bin(11, 20, 2))
    """
    import numpy as np

    if not len(lengths):
        return ()
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = next(
        width for width in _round_numbers() if (longest - 1) // width - (shortest - 1) // width < max(1, max_bins)
    )
    start = (shortest - 1) // width
    counts = np.bincount((np.asarray(lengths) - 1) // width - start)
    return tuple(
        Bin(index * width + 1, (index + 1) * width, count) for index, count in enumerate(counts.tolist(), start=start)
    )


def _round_numbers() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def bar_lines(bins: Sequence[Bin]) -> list[str]:
    """The bins as lines of text with a bar each; a bin that is not empty has a bar of at least one mark.

    Example:
        bar_lines((Bin(1, 10, 1), Bin(11, 20, 2))) == [
            " 1-10  1  ####################",
            "11-20  2  ########################################",
        ]
    """
    if not bins:
        return []
    most = max(item.count for item in bins)
    name_width, count_width = len(_name(bins[-1])), len(f"{most:,}")
    return [
        f"{_name(item):>{name_width}}  {item.count:>{count_width},}  "
        f"{'#' * -(-item.count * MAX_BAR_LENGTH // most)}".rstrip()
        for item in bins
    ]


def _name(item: Bin) -> str:
    return f"{item.first:,}-{item.last:,}" if item.last > item.first else f"{item.first:,}"


def plot_lengths(plots: Sequence[LengthPlot]) -> bytes:
    """Draw the bins of each split below each other; those without samples are left out.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plots = [plot for plot in plots if plot.bins]
    figure = Figure(figsize=(8, 2.8 * max(1, len(plots))), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(max(1, len(plots)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, plot, color in zip(rows, plots, (TRAIN_COLOR, EVAL_COLOR), strict=False):
        edges = [plot.bins[0].first - 0.5, *(item.last + 0.5 for item in plot.bins)]
        axis.stairs([item.count for item in plot.bins], edges, fill=True, color=color)
        for name, position in plot.marks:
            axis.axvline(position, color=MARK_COLOR, linewidth=0.9, linestyle=":")
            axis.annotate(f"{name} {position:,}", (position, 1), xycoords=("data", "axes fraction"), rotation=90,
                          xytext=(2, -2), textcoords="offset points", va="top", size=7, color=MARK_COLOR)  # fmt: skip
        axis.set_title(plot.title, loc="left", fontweight="bold")
        axis.set_ylabel("samples")
        axis.grid(color=GRID_COLOR, linewidth=0.6, axis="y")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlim(left=0)
    rows[-1].set_xlabel("tokens")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()

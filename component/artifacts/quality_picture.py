"""Scores with their intervals, loss curves that should coincide, and gradient errors, as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import write_atomically

COLOR = "#2f6db3"
#: Colour and line of each curve: those that coincide show through each other.
CURVES = ((COLOR, "-"), ("#d1602b", "--"), ("#5b8a5b", ":"))
GRID_COLOR = "#d9d9d9"


def draw_quality(
    scores: Mapping[str, Sequence[tuple[str, float, float | None]]],
    curves: Mapping[str, Sequence[float]],
    errors: Mapping[str, float],
    path: Path,
) -> None:
    """Draw into a PNG.

    Args:
        scores: what is scored -> name of the way to train, mean over seeds, half its interval.
        curves: name of the path -> loss of each step in nats per supervised token.
        errors: name -> relative error of gradients.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(11, 7.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1)
    for axis, (title, points) in zip(upper.subplots(1, max(1, len(scores)), squeeze=False)[0], scores.items(),
                                     strict=False):  # fmt: skip
        _draw_scores(axis, title, points)
    left, right = lower.subplots(1, 2)
    for (color, line), (name, losses) in zip(CURVES, curves.items(), strict=False):
        left.plot(range(1, len(losses) + 1), losses, line, color=color, linewidth=1.5, label=name)
    _finish(left, "loss of each step, all rows in every step", "optimizer step")
    if curves:
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        left.legend(fontsize=7, frameon=False)
    right.barh(list(errors), [100 * error for error in errors.values()], color=COLOR)
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=7)
    _finish(right, "gradients: difference to float32", "% of their norm")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _draw_scores(axis: Any, title: str, points: Sequence[tuple[str, float, float | None]]) -> None:
    for place, (_, mean, half) in enumerate(points):
        axis.errorbar(mean, place, xerr=half or 0, fmt="o", color=COLOR, capsize=3, markersize=4)
    axis.set_yticks(range(len(points)), [name for name, _, _ in points], fontsize=7)
    axis.invert_yaxis()
    _finish(axis, title, "mean over seeds, 95 % interval")


def _finish(axis: Any, title: str, label: str) -> None:
    axis.set_title(title, loc="left", fontweight="bold", fontsize=9)
    axis.set_xlabel(label, fontsize=8)
    axis.set_axisbelow(True)
    axis.grid(axis="x", color=GRID_COLOR, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)

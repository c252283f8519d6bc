"""Results of benchmarks as pictures: bars side by side, or curves over a size."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.artifacts.strict_json import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, OTHERS = "#d1602b", "#2f6db3"


@dataclass(frozen=True)
class Bars:
    """A panel of bars.

    Attributes:
        values: name -> number; None leaves the place empty.
        ours: names whose bars stand out.
    """

    title: str
    unit: str
    values: Mapping[str, float | None]
    form: str = "{:,.0f}"
    ours: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Curves:
    """A panel of curves.

    Attributes:
        curves: name -> points.
        marks: name -> points that are not joined.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    marks: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    x_is_log: bool = False


def draw_bars(panels: Sequence[Bars], path: Path) -> None:
    """Draw panels with the same names side by side into a PNG.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.values))
    figure = _figure((3.6 + 3.2 * len(panels), 1.0 + 0.34 * max(1, len(names))))
    axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        values = [panel.values.get(name) for name in names]
        colors = [OURS if name in panel.ours else OTHERS for name in names]
        bars = axis.barh(range(len(names)), [value or 0.0 for value in values], color=colors)
        labels = ["-" if value is None else panel.form.format(value) for value in values]
        axis.bar_label(bars, labels, padding=3, fontsize=7)
        axis.set_title(panel.title, loc="left", fontweight="bold", fontsize=9)
        axis.set_xlabel(panel.unit, fontsize=8)
        axis.margins(x=0.18)
        axis.locator_params(axis="x", nbins=5)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0].invert_yaxis()
    _save(figure, path)


def draw_curves(panels: Sequence[Curves], path: Path) -> None:
    """Draw panels side by side into a PNG.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    figure = _figure((1.0 + 4.6 * max(1, len(panels)), 3.8))
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        for name, points in panel.curves.items():
            _plot(axis, points, marker="o", markersize=3, linewidth=1.4, label=name)
        for name, points in panel.marks.items():
            _plot(axis, points, marker="x", markersize=6, linewidth=0, label=name)
        if panel.x_is_log:
            axis.set_xscale("log", base=2)
        ticks = sorted({x for points in (*panel.curves.values(), *panel.marks.values()) for x, _ in points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        axis.tick_params(axis="y", labelsize=7)
        axis.minorticks_off()
        axis.set_title(panel.title, loc="left", fontweight="bold", fontsize=9)
        axis.set_xlabel(panel.x, fontsize=8)
        axis.set_ylabel(panel.y, fontsize=8)
        axis.grid(color="#d9d9d9", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if panel.curves or panel.marks:
            axis.legend(frameon=False, fontsize=7)
    _save(figure, path)


def _plot(axis: Any, points: Sequence[tuple[float, float]], **style: Any) -> None:
    axis.plot([x for x, _ in points], [y for _, y in points], **style)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())

"""Errors of predictions as a picture: a point for each config and quantity, held-out ones filled."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from component.artifacts.strict_json import write_atomically


def draw_errors(errors: Mapping[str, Sequence[tuple[str, float, bool]]], path: Path) -> None:
    """Draw errors into a PNG.

    Args:
        errors: quantity -> name of the config, prediction over measurement less one, and whether it is held out.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for points in errors.values() for name, _, _ in points))
    figure = Figure(figsize=(10, 1.6 + 0.2 * len(names)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(errors)), sharey=True, squeeze=False)[0]
    for axis, (quantity, points) in zip(axes, errors.items(), strict=False):
        for name, error, is_held_out in points:
            axis.plot(100 * error, names.index(name), "o", color="#2f6db3", fillstyle="full" if is_held_out else "none")
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.set_title(quantity, loc="left", fontweight="bold", fontsize=9)
        axis.set_xlabel("error, %")
        axis.grid(axis="x", color="#d9d9d9", linewidth=0.6)
    axes[0].set_yticks(range(len(names)), names, fontsize=6)
    axes[0].invert_yaxis()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())

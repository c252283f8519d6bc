"""loss.png: training and evaluation loss, and the learning rate, over the steps of a run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from component.artifacts.metrics import read_metrics
from component.artifacts.strict_json import write_atomically

FILE_NAME = "loss.png"
TRAIN_COLOR, EVAL_COLOR, RATE_COLOR, GRID_COLOR = "#2f6db3", "#d1602b", "#5b8a5b", "#d9d9d9"


def plot_loss(folder: Path, run_name: str = "") -> Path | None:
    """Draw the metrics.jsonl of a run folder into its loss.png.

    Args:
        run_name: the title; the folder's name by default.

    Returns:
        The picture, None when no loss was logged.

    Raises:
        UserError: metrics.jsonl is absent or damaged.
        MachineError: the disk is full, or the place cannot be written.
    """
    records = read_metrics(folder)
    train, evaluation = _curve(records, "loss"), _curve(records, "eval_loss")
    if not train and not evaluation:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates = _curve(records, "learning_rate")
    figure = Figure(figsize=(8, 5.2), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if rates else 1, 1, sharex=True, squeeze=False, height_ratios=(4, 1) if rates else None)
    upper, lower = axes[0, 0], axes[-1, 0]
    _draw_losses(upper, train, evaluation)
    upper.set_title(run_name or folder.resolve().name, loc="left", fontweight="bold")
    if rates:
        lower.plot(*zip(*rates, strict=True), color=RATE_COLOR, linewidth=1.4)
        lower.set_ylabel("learning rate")
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        lower.set_ylim(bottom=0)
    lower.set_xlabel("optimizer step")
    for axis in {upper, lower}:
        axis.grid(color=GRID_COLOR, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.02)
    path = folder / FILE_NAME
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
    return path


def smooth(values: Sequence[float], *, weight: float) -> list[float]:
    """Mean of each value's neighbours on both sides, which unlike a running average does not lag behind a falling loss.

    Args:
        values: non-finite ones are passed through and do not enter the mean.
        weight: of a neighbour at distance d is weight ** d, from 0 (no smoothing) to below 1.
    """
    known = [value if math.isfinite(value) else 0.0 for value in values]
    counts = [1.0 if math.isfinite(value) else 0.0 for value in values]
    totals, shares = _decaying_sums(known, weight), _decaying_sums(counts, weight)
    pairs = zip(values, totals, shares, strict=True)
    return [total / share if math.isfinite(value) else value for value, total, share in pairs]


def _decaying_sums(values: Sequence[float], weight: float) -> list[float]:
    """For each place i the sum of values[j] * weight ** abs(i - j), in linear time."""

    def one_side(values: Sequence[float]) -> list[float]:
        """Running sums in which earlier values count ever less."""
        return list(accumulate(values, lambda total, value: weight * total + value))

    before, after = one_side(values), one_side(values[::-1])[::-1]
    return [left + right - own for left, right, own in zip(before, after, values, strict=True)]


def _draw_losses(axis: Any, train: list[tuple[float, float]], evaluation: list[tuple[float, float]]) -> None:
    if train:
        steps, losses = zip(*train, strict=True)
        # A fixed part of the curve is averaged, so that short and long runs look alike.
        window = max(1.0, len(train) / 50)
        axis.plot(steps, losses, color=TRAIN_COLOR, alpha=0.3, linewidth=1, marker="." if len(train) < 3 else None)
        axis.plot(
            steps, smooth(losses, weight=1 - 1 / window), color=TRAIN_COLOR, linewidth=2, label="train (smoothed)"
        )
        broken = [step for step, loss in train if not math.isfinite(loss)]
        if broken:
            axis.plot(broken, [0.02] * len(broken), "x", color="#b00020", transform=axis.get_xaxis_transform(),
                      label="train not finite")  # fmt: skip
    if evaluation:
        axis.plot(
            *zip(*evaluation, strict=True), color=EVAL_COLOR, linewidth=1.6, marker="o", markersize=4, label="eval"
        )
    axis.set_ylabel("loss (nats per supervised token)")
    axis.legend(frameon=False)


def _curve(records: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(record["step"], float(record[name])) for record in records if name in record and "step" in record]

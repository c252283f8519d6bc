"""loss.png and its smoothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from component.artifacts.metrics import MetricsWriter
from component.artifacts.plots import plot_loss, smooth


def test_smoothing_weighs_neighbours_by_distance() -> None:
    assert smooth([4.0, 2.0, 2.0], weight=0.5) == pytest.approx([5.5 / 1.75, 5 / 2, 4 / 1.75])
    assert smooth([3.0, 1.0], weight=0.0) == [3.0, 1.0]
    assert smooth([5.0] * 10, weight=0.9) == pytest.approx([5.0] * 10)
    assert smooth([], weight=0.9) == []


def test_smoothing_does_not_lag() -> None:
    line = [float(100 - step) for step in range(101)]
    assert smooth(line, weight=0.5)[30:70] == pytest.approx(line[30:70])


def test_non_finite_values_do_not_spread() -> None:
    smoothed = smooth([4.0, math.nan, 2.0], weight=0.5)
    assert math.isnan(smoothed[1])
    assert (smoothed[0], smoothed[2]) == pytest.approx((4.5 / 1.25, 3 / 1.25))


@pytest.mark.parametrize("losses", [[2.0], [2.0, 1.5, math.nan, 1.0], [math.nan, math.nan], [1.0] * 300])
@pytest.mark.parametrize("with_rate", [True, False])
def test_a_picture_is_drawn(tmp_path: Path, losses: list[float], with_rate: bool) -> None:
    writer = MetricsWriter(tmp_path)
    for step, loss in enumerate(losses, 1):
        writer.write({"step": step, "loss": loss, **({"learning_rate": 1e-4 / step} if with_rate else {})})
    writer.write({"step": len(losses), "eval_loss": 1.1})
    path = plot_loss(tmp_path)
    assert path == tmp_path / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_no_loss_no_picture(tmp_path: Path) -> None:
    MetricsWriter(tmp_path).write({"step": 1, "train_runtime": 3.0})
    assert plot_loss(tmp_path) is None
    assert not (tmp_path / "loss.png").exists()

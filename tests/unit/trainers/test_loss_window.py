"""Losses that are not logged yet survive a checkpoint to the last bit."""

from __future__ import annotations

from component.trainers.loss_window import LossWindow


def test_round_trip(tmp_path) -> None:
    window = LossWindow(loss_sum=0.1 + 0.2, last_logged_step=7)
    window.save(tmp_path)
    assert LossWindow.load(tmp_path) == window

"""The parts of a start add up to the whole of it."""

from __future__ import annotations

import time

import pytest

from component.runtime import stopwatch
from component.runtime.stopwatch import Stopwatch, command_began


def test_each_moment_belongs_to_one_part(monkeypatch) -> None:
    times = iter([3.0, 5.0, 6.0, 10.0, 18.0])
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: next(times))
    watch = Stopwatch(1.0)
    for part in ("data", "imports", "model", "step"):
        watch.switch(part)
    assert watch.seconds() is None
    watch.stop()
    watch.stop()
    watch.switch("model")
    assert watch.seconds() == {"imports": 3.0, "data": 2.0, "model": 4.0, "step": 8.0}


def test_a_command_began_before_its_python() -> None:
    assert command_began() < time.monotonic()
    assert command_began() == pytest.approx(command_began(), abs=0.05)

"""Signals during training."""

from __future__ import annotations

import os
import signal

import pytest

from component.trainers.interrupts import Interrupts

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")


def test_a_closed_terminal_is_heeded_however_often_it_is_told(capfd) -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert interrupts.received == "SIGHUP"
    assert capfd.readouterr().err == (
        "SIGHUP: the run stops with a checkpoint after this step, or finishes if all steps are done; "
        "once more to stop at once\n"
    )


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, Interrupts() as interrupts:
        patch.setattr("os.write", fail)
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.received == "SIGTERM"

"""What the callbacks ask of the training loop."""

from __future__ import annotations

import math
import os
import signal

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from component.config.errors import GuardError
from component.trainers.callbacks.guards import InterruptCallback, NonFiniteLossCallback
from component.trainers.callbacks.resume import ResumableEarlyStopping, ResumeCallback
from component.trainers.interrupts import Interrupts


@pytest.fixture
def arguments(tmp_path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, eval_on_start=True, eval_strategy="steps", metric_for_best_model="loss"
    )


def interrupt() -> InterruptCallback:
    interrupts = Interrupts()
    with interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
    assert (interrupts.received, interrupts.has_stopped_training) == ("SIGTERM", False)
    return InterruptCallback(interrupts)


def test_two_signals_stop_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("step", "stops"), [(3, True), (9, False)], ids=["inside", "last"])
def test_a_signal_saves_and_stops_unless_the_run_ends_anyway(arguments, step: int, stops: bool) -> None:
    control = interrupt().on_step_end(arguments, TrainerState(global_step=step, max_steps=9), TrainerControl())
    assert (control.should_save, control.should_training_stop) == (stops, stops)
    assert not control.should_evaluate and not control.should_log


@pytest.mark.parametrize(("epoch", "counts"), [(1.5, False), (2.0, True)])
def test_the_end_of_an_epoch_counts_only_where_it_is_one(arguments, epoch: float, counts: bool) -> None:
    """transformers leaves the loop of an epoch through its end also when it was interrupted."""
    callback, state = interrupt(), TrainerState(global_step=4, max_steps=9, epoch=epoch)
    callback.on_step_end(arguments, state, TrainerControl())
    control = callback.on_epoch_end(arguments, state, TrainerControl(should_evaluate=True, should_log=True))
    assert (control.should_evaluate, control.should_log, control.should_save) == (counts, counts, counts)


@pytest.mark.parametrize(("step", "done"), [(4, False), (9, True)])
def test_a_resumed_run_knows_what_is_left(arguments, step: int, done: bool) -> None:
    state = TrainerState(global_step=step, max_steps=9)
    control = ResumeCallback().on_train_begin(arguments, state, TrainerControl())
    assert control.should_training_stop is done
    assert arguments.eval_on_start is False


@pytest.mark.parametrize(("count", "stops"), [(0, False), (2, False), (3, True)])
def test_early_stopping_takes_its_count_from_the_checkpoint(arguments, count: int, stops: bool) -> None:
    before = ResumableEarlyStopping(3, 0.0)
    before.early_stopping_patience_counter = count
    after = ResumableEarlyStopping(3, 0.0)
    control = after.on_train_begin(arguments, TrainerState(stateful_callbacks=[before]), TrainerControl())
    assert (after.early_stopping_patience_counter, control.should_training_stop) == (count, stops)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "eval_loss"])
def test_a_loss_that_is_not_finite_stops_the_run(arguments, name: str, value: float) -> None:
    state = TrainerState(global_step=7)
    NonFiniteLossCallback().on_log(arguments, state, TrainerControl(), logs={name: 3.0})
    with pytest.raises(GuardError, match=f"^{name} is {value} at step 7: training has diverged; lower learning_rate"):
        NonFiniteLossCallback().on_log(arguments, state, TrainerControl(), logs={name: value})

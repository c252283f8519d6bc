"""The console during training: a bar on a terminal, lines elsewhere; rank 0 only."""

from __future__ import annotations

import sys
import time
from typing import Any

from loguru import logger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.artifacts.card import duration
from component.runtime.distributed import is_main_process

#: What says more of a task than its loss, and what it is called beside it.
TASK_METRICS = {
    "reward": "reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "margin": "margin",
    "accuracy": "accuracy",
}
#: Narrow, so that the numbers beside it fit into 80 columns.
BAR_WIDTH = 12


class ConsoleCallback(TrainerCallback):
    """Shows step, loss, tokens per second, peak memory and time left.

    Args:
        disabled: True for lines also on a terminal, False for a bar also off one, None to look at the terminal.
    """

    def __init__(self, disabled: bool | None) -> None:
        self._wants_bar = sys.stderr.isatty() if disabled is None else not disabled and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._begun_at = 0.0
        self._begun_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, and the bar on a terminal."""
        self._begun_at, self._begun_step = time.monotonic(), state.global_step
        if self._wants_bar and is_main_process():
            columns = (
                BarColumn(BAR_WIDTH),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, transient=True)
            self._bar.add_task("", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show a logged step."""
        if not is_main_process() or not logs:
            return
        if "eval_loss" in logs:
            text = f"eval loss {logs['eval_loss']:.4f}"
            if "eval_perplexity" in logs:
                text += f"  perplexity {logs['eval_perplexity']:,.2f}"
            text += "".join(f"  {item}" for item in _task_metrics(logs, "eval_"))
            logger.info(f"step {state.global_step}/{state.max_steps}  {text}")
        elif "loss" in logs:
            text = self._describe(state, logs)
            if self._bar:
                self._bar.update(self._bar.task_ids[0], description=text)
            else:
                logger.info(f"step {state.global_step}/{state.max_steps}  {text}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar off the screen."""
        self.close()

    def close(self) -> None:
        """End the bar, which else hides the cursor and redraws itself over messages; a second call does nothing."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _describe(self, state: TrainerState, logs: dict[str, Any]) -> str:
        done = state.global_step - self._begun_step
        left = (time.monotonic() - self._begun_at) / max(done, 1) * (state.max_steps - state.global_step)
        parts = [f"loss {logs['loss']:.4f}"]
        parts += _task_metrics(logs)
        if not self._bar:
            parts += [f"lr {logs.get('learning_rate', 0.0):.2e}", f"grad norm {logs.get('grad_norm', 0.0):.3f}"]
        parts += [
            f"{logs.get('tokens_per_second', 0.0):,.0f} tokens/s",
            f"peak {logs.get('peak_memory_bytes', 0) / 2**30:.2f} GiB",
            f"left {duration(left)}",
        ]
        return "  ".join(parts)


def _task_metrics(logs: dict[str, Any], prefix: str = "") -> list[str]:
    values = {word: logs.get(prefix + name) for name, word in TASK_METRICS.items()}
    return [f"{word} {value:.3f}" for word, value in values.items() if value is not None]


def close_console(trainer: Trainer) -> None:
    """End the bar of a trainer, also one that ended in an exception: then no callback hears of the end."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ConsoleCallback):
            callback.close()

"""What a trainer knew when its last step was done: a checkpoint written after a failed step is of that moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.runtime.seeds import capture_random_state

if TYPE_CHECKING:
    from torch import Tensor

    from component.trainers.token_counter import TokenCounter

#: In a checkpoint: the evaluation of its step failed and is still to be done.
DUE_FILE = "evaluation_due"


@dataclass(frozen=True)
class LastStep:
    """What a failed step changes beside gradients, which are dropped.

    Weights, optimizer and schedule change in the update alone, at the end of a step; `UpdateCallback` knows of that.

    Attributes:
        loss_sum: of steps that are not logged yet, shape ().
        flos: floating point operations that are not stored yet.
        rewinds: put back random numbers, token counts and what else a task's trainer counts.
    """

    loss_sum: Tensor
    last_logged_step: int
    flos: float
    rewinds: tuple[Callable[[], None], ...]

    @classmethod
    def note(cls, trainer: Any, tokens: TokenCounter, own: Callable[[], None] | None) -> LastStep:
        """Note the state of a trainer between two steps; waits for no device.

        Args:
            own: puts back what the trainer of a task counts beside.
        """
        rewinds = (capture_random_state(), tokens.mark(), *([own] if own else []))
        return cls(trainer._tr_loss.clone(), trainer._globalstep_last_logged, trainer.current_flos, rewinds)

    def restore(self, trainer: Any) -> None:
        """Put a trainer back to it."""
        trainer._tr_loss = self.loss_sum
        trainer._globalstep_last_logged = self.last_logged_step
        trainer.current_flos = self.flos
        for rewind in self.rewinds:
            rewind()


class UpdateCallback(TrainerCallback):
    """Knows whether the optimizer is at work: weights are of no step then, and not fit for a checkpoint.

    Attributes:
        is_updating: from the beginning of an update until it is whole.
    """

    def __init__(self) -> None:
        self.is_updating = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Parameters change from here on."""
        self.is_updating = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The step is counted."""
        self.is_updating = False


def mark_due(folder: Path) -> None:
    """Write into a checkpoint that its evaluation is to be done."""
    (folder / DUE_FILE).touch()


def is_due(folder: Path) -> bool:
    """Whether the evaluation of a checkpoint is to be done."""
    return (folder / DUE_FILE).is_file()

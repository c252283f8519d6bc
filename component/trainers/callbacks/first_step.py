"""When the first optimizer step of a run is done, the device's work included."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.runtime.stopwatch import Stopwatch


class FirstStepCallback(TrainerCallback):
    """Stops a watch at the end of the first step of this process, for which it waits once for the device."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch: Stopwatch | None = watch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Steps after the first are nobody's business here."""
        if self._watch is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._watch.stop()
        self._watch = None

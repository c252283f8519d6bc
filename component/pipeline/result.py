"""What a run hands back to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        output_dir: the run folder.
        global_step: optimizer steps done.
        metrics: first_loss, last_loss and eval_loss in nats per supervised token, eval_perplexity, last_step and
            model_step (whose weights are saved), tokens per second, peak memory in bytes, MFU; None where a value was
            not measured.
        was_finished: the run had finished before; nothing was trained now.
    """

    output_dir: Path
    global_step: int
    metrics: Mapping[str, Any]
    was_finished: bool = False

"""The losses since the last logged line, kept in checkpoints so that the next line is the same after a resume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "loss_window.json"


@dataclass(frozen=True)
class LossWindow:
    """Mean losses of steps, in nats per supervised token, added up since `last_logged_step`."""

    loss_sum: float
    last_logged_step: int

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LossWindow:
        """Read it from a checkpoint."""
        return cls(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))

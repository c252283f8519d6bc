"""Running totals of the tokens that a run has trained on, kept on the device so that counting never waits for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FILE_NAME = "token_counts.json"


@dataclass(frozen=True)
class TokenCounts:
    """Tokens since the first step: those the loss counts, real ones, and real ones plus padding."""

    supervised: int = 0
    real: int = 0
    padded: int = 0


class TokenCounter:
    """Adds up batches; `read` is the only call that waits for the device."""

    def __init__(self) -> None:
        self._base = TokenCounts()
        self._sums: list[Tensor | int] = [0, 0, 0]

    def add(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        """Count the micro-batches of one optimizer step: `labels` and `attention_mask` of shape (B, L)."""
        for batch in batches:
            labels = batch["labels"]
            mask = batch.get("attention_mask")
            self._sums[0] = self._sums[0] + labels[..., 1:].ne(-100).sum()
            self._sums[1] = self._sums[1] + (labels.numel() if mask is None else mask.sum())
            self._sums[2] = self._sums[2] + labels.numel()

    def read(self) -> TokenCounts:
        """The totals so far, earlier attempts of the run included."""
        supervised, real, padded = (int(total) for total in self._sums)
        base = self._base
        return TokenCounts(base.supervised + supervised, base.real + real, base.padded + padded)

    def save(self, folder: Path) -> None:
        """Write the totals into a checkpoint."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self.read())) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from the totals of a checkpoint."""
        self._base = TokenCounts(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        self._sums = [0, 0, 0]

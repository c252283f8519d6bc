"""Tokens that a run has trained on and the speed it does it at; counted on the device, so that nobody waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class Lap:
    """A stretch of training: its seconds, those of them that it waited for batches, and its tokens."""

    seconds: float
    real: int
    padded: int
    data_wait: float = 0.0


class TokenCounter:
    """Adds up batches and times stretches of training.

    Attributes:
        laps: the stretches so far, evaluation left out.
    """

    def __init__(self) -> None:
        self.laps: list[Lap] = []
        self._base = TokenCounts()
        self._sums: list[Tensor | int] = [0, 0, 0]
        self.start_lap()

    def add(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        """Count the micro-batches of one optimizer step: `labels` or `completion_mask`, `attention_mask`: (B, L)."""
        for batch in batches:
            labels = batch.get("labels")
            supervised = batch["completion_mask"] if labels is None else labels.ne(-100)
            mask = batch.get("attention_mask")
            self._sums[0] = self._sums[0] + supervised[..., 1:].sum()
            self._sums[1] = self._sums[1] + (supervised.numel() if mask is None else mask.sum())
            self._sums[2] = self._sums[2] + supervised.numel()

    def add_wait(self, seconds: float) -> None:
        """Count time in which training waited for a batch."""
        self._data_wait += seconds

    def read(self) -> TokenCounts:
        """The totals so far, earlier attempts of the run included; waits for the device."""
        supervised, real, padded = (int(total) for total in self._sums)
        base = self._base
        return TokenCounts(base.supervised + supervised, base.real + real, base.padded + padded)

    def start_lap(self) -> None:
        """Begin a stretch here; what came before it since the last lap is not timed."""
        self._lap_time, self._lap_counts = time.monotonic(), self.read()
        self._data_wait = 0.0

    def end_lap(self) -> Lap:
        """End the stretch and begin the next."""
        counts = self.read()
        lap = Lap(
            seconds=max(time.monotonic() - self._lap_time, 1e-9),
            real=counts.real - self._lap_counts.real,
            padded=counts.padded - self._lap_counts.padded,
            data_wait=self._data_wait,
        )
        self.laps.append(lap)
        self.start_lap()
        return lap

    def tokens_per_second(self) -> tuple[float, float] | None:
        """Real and padded tokens per second over all laps but the first, which holds warm-up and compilation.

        None without a lap; the first one counts where it is the only one.
        """
        laps = self.laps[1:] or self.laps
        seconds = sum(lap.seconds for lap in laps)
        if not seconds:
            return None
        return sum(lap.real for lap in laps) / seconds, sum(lap.padded for lap in laps) / seconds

    def data_wait_share(self) -> float | None:
        """Share of the time in which training waited for batches, over the laps that `tokens_per_second` is of."""
        laps = self.laps[1:] or self.laps
        seconds = sum(lap.seconds for lap in laps)
        return sum(lap.data_wait for lap in laps) / seconds if seconds else None

    def mark(self) -> Callable[[], None]:
        """Note the totals, without waiting for the device.

        Returns:
            A function that sets them back, as if nothing had been counted since.
        """
        sums = list(self._sums)

        def rewind() -> None:
            """Forget what came after."""
            self._sums = list(sums)

        return rewind

    def save(self, folder: Path) -> None:
        """Write the totals into a checkpoint."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self.read())) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from the totals of a checkpoint."""
        self._base = TokenCounts(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        self._sums = [0, 0, 0]
        self.start_lap()

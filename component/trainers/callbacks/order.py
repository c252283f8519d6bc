"""Tells the sampler which epoch begins."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.data.order import EpochOrderSampler


class OrderCallback(TrainerCallback):
    """Sets the sampler's epoch itself: accelerate loses set_epoch when a resume skips the first batches of an epoch."""

    def __init__(self, order: EpochOrderSampler) -> None:
        self._order = order

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """`state.epoch` is fractional inside an epoch, and exact at its ends."""
        self._order.set_epoch(int(state.epoch or 0))

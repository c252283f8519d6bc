"""Prepared pairs as a torch dataset, and the batches that preference losses read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from component.data.collators import IGNORED_LABEL, PaddingCollator
from component.data.rows import Prepared
from component.data.samples import Samples

SIDES = ("chosen", "rejected")


class PairDataset(Dataset[dict[str, Any]]):
    """Gives each pair as {"chosen": {"input_ids", "labels"}, "rejected": {...}}, labels -100 where not supervised.

    Args:
        samples: pairs, in the order of the data; the sampler decides the order of training.
        columns: further numbers of each pair, by name, each of shape (N,).
    """

    def __init__(self, samples: Samples, columns: Mapping[str, torch.Tensor] | None = None) -> None:
        self.samples = samples
        self.columns = dict(columns or {})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self.samples[index]
        row = {"chosen": _features(pair.chosen), "rejected": _features(pair.rejected)}
        return row | {name: values[index].item() for name, values in self.columns.items()}


def _features(sample: Prepared) -> dict[str, list[int]]:
    return {"input_ids": list(sample.input_ids), "labels": sample.labels()}


class PairCollator:
    """Pads pairs into one batch: all chosen ones, then all rejected ones.

    Args:
        pad_token_id: fills input_ids; masked, so that any id of the vocabulary will do.
    """

    def __init__(self, pad_token_id: int) -> None:
        self._pad = PaddingCollator(pad_token_id)

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            pairs: B of them, as a PairDataset gives them.

        Returns:
            input_ids, attention_mask and completion_mask (1 where supervised), each of shape (2 B, L) and dtype int64;
            and each further column, of shape (B,) and dtype float32.
        """
        batch = self._pad([pair[side] for side in SIDES for pair in pairs])
        batch["completion_mask"] = batch.pop("labels").ne(IGNORED_LABEL).to(torch.int64)
        names = [name for name in pairs[0] if name not in SIDES]
        return batch | {name: torch.tensor([pair[name] for pair in pairs]) for name in names}

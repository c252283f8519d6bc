"""Prepared answers with a label as a torch dataset, and the batches that kto reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from component.data.collators import IGNORED_LABEL, PaddingCollator
from component.data.samples import Samples


class LabelledDataset(Dataset[dict[str, Any]]):
    """Gives each answer as {"input_ids", "labels", "label"}: ids, -100 where not supervised, and whether it is good.

    Args:
        samples: in the order of the data; the sampler decides the order of training.
        columns: further numbers of each answer, by name, each of shape (N,).
    """

    def __init__(self, samples: Samples, columns: Mapping[str, torch.Tensor] | None = None) -> None:
        self.samples = samples
        self.columns = dict(columns or {})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        row = {"input_ids": list(sample.input_ids), "labels": sample.labels(), "label": sample.label}
        return row | {name: values[index].item() for name, values in self.columns.items()}


class LabelledCollator:
    """Pads answers into a batch and, for kto's estimate of the KL divergence, puts each after another prompt of it.

    The answer after prompt i is that of row i - 1, so that the same answers stand after other prompts. TRL pairs them
    once, in the order of the file, and so cannot shuffle; here they are paired as batches come.

    Args:
        pad_token_id: fills input_ids; masked, so that any id of the vocabulary will do.
        max_length: longest mismatched row in tokens; its end is cut off.
        with_mismatched: whether to add these rows, as `KL_input_ids` and so on.
    """

    def __init__(self, pad_token_id: int, *, max_length: int, with_mismatched: bool) -> None:
        self._pad = PaddingCollator(pad_token_id)
        self._max_length = max_length
        self._with_mismatched = with_mismatched

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            rows: B of them, as a LabelledDataset gives them.

        Returns:
            input_ids, attention_mask and completion_mask (1 where supervised), each of shape (B, L) and dtype int64;
            the same with KL_ before the name; label, of shape (B,) and dtype bool; each further column, of shape (B,).
        """
        batch = self._batch(rows)
        if self._with_mismatched:
            mismatched = [self._join(prompt, answer) for prompt, answer in zip(rows, [rows[-1], *rows], strict=False)]
            batch |= {f"KL_{name}": value for name, value in self._batch(mismatched).items()}
        names = [name for name in rows[0] if name not in ("input_ids", "labels")]
        return batch | {name: torch.tensor([row[name] for row in rows]) for name in names}

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._pad(rows)
        return batch | {"completion_mask": batch.pop("labels").ne(IGNORED_LABEL).to(torch.int64)}

    def _join(self, prompt: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, list[int]]:
        end, begin = _first_supervised(prompt), _first_supervised(answer)
        ids = prompt["input_ids"][:end] + answer["input_ids"][begin:]
        labels = prompt["labels"][:end] + answer["labels"][begin:]
        return {"input_ids": ids[: self._max_length], "labels": labels[: self._max_length]}


def _first_supervised(row: Mapping[str, Any]) -> int:
    return next((place for place, label in enumerate(row["labels"]) if label != IGNORED_LABEL), len(row["labels"]))

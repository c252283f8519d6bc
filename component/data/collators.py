"""From samples to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

IGNORED_LABEL = -100
"""Labels of this value do not count in the loss."""


class PaddingCollator:
    """Pads samples on the right to the longest of their batch.

    The mask is built from lengths, never from token ids: the pad token may be the EOS token that ends each answer.

    Args:
        pad_token_id: fills input_ids; masked, so that any id of the vocabulary will do.
        pad_to_multiple_of: rounds the padded length up to a multiple of this.
    """

    def __init__(self, pad_token_id: int, *, pad_to_multiple_of: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            samples: each with `input_ids` and `labels` of one length.

        Returns:
            input_ids, labels (-100 where padded) and attention_mask, each of shape (B, L) and dtype int64.
        """
        longest = max(len(sample["input_ids"]) for sample in samples)
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        shape = (len(samples), length)
        input_ids = torch.full(shape, self.pad_token_id, dtype=torch.int64)
        labels = torch.full(shape, IGNORED_LABEL, dtype=torch.int64)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        for row, sample in enumerate(samples):
            num_tokens = len(sample["input_ids"])
            input_ids[row, :num_tokens] = torch.tensor(sample["input_ids"], dtype=torch.int64)
            labels[row, :num_tokens] = torch.tensor(sample["labels"], dtype=torch.int64)
            attention_mask[row, :num_tokens] = 1
        return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


class PackingCollator:
    """Lays packs end to end in one row, where only positions that begin again tell the samples apart.

    There is no attention mask: with one, and on some paths with more rows than one, samples would see each other. The
    first label of each sample is -100, since what precedes it in the row is another sample.
    """

    def __call__(self, packs: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> dict[str, torch.Tensor]:
        """Build a batch.

        Args:
            packs: each with `input_ids` and `labels`, a list for each of its samples.

        Returns:
            input_ids, labels and position_ids, each of shape (1, sum of all lengths) and dtype int64.
        """
        input_ids: list[int] = []
        labels: list[int] = []
        position_ids: list[int] = []
        for pack in packs:
            for sample_ids, sample_labels in zip(pack["input_ids"], pack["labels"], strict=True):
                input_ids += sample_ids
                labels += [IGNORED_LABEL, *sample_labels[1:]]
                position_ids += range(len(sample_ids))
        row = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}
        return {name: torch.tensor([values], dtype=torch.int64) for name, values in row.items()}

"""Batches of pairs and of labelled answers: what counts is what the spans say, not where the prompt ends."""

from __future__ import annotations

import torch

from component.data.labelled import LabelledCollator
from component.data.pairs import PairCollator

PAIRS = [
    {
        "chosen": {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, -100, 4, 5]},
        "rejected": {"input_ids": [1, 9], "labels": [-100, 9]},
        "ref_chosen_logps": -1.5,
    },
    {
        "chosen": {"input_ids": [7, 8], "labels": [-100, 8]},
        "rejected": {"input_ids": [7, 6, 0], "labels": [-100, -100, 0]},
        "ref_chosen_logps": -2.0,
    },
]


def test_pairs() -> None:
    """Of several answers in one row each counts; a pad token that is also written stays real."""
    batch = PairCollator(0)(PAIRS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [7, 8, 0, 0, 0], [1, 9, 0, 0, 0], [7, 6, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert batch["completion_mask"].tolist() == [[0, 1, 0, 1, 1], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert torch.equal(batch["ref_chosen_logps"], torch.tensor([-1.5, -2.0]))
    assert batch.keys() == {"input_ids", "attention_mask", "completion_mask", "ref_chosen_logps"}


ROWS = [
    {"input_ids": [1, 2, 10, 11], "labels": [-100, -100, 10, 11], "label": True},
    {"input_ids": [3, 20], "labels": [-100, 20], "label": False},
    {"input_ids": [4, 5, 30, 6, 31], "labels": [-100, -100, 30, -100, 31], "label": True},
]


def test_each_answer_also_stands_after_another_prompt() -> None:
    batch = LabelledCollator(0, max_length=4, with_mismatched=True)(ROWS)
    assert batch["label"].tolist() == [True, False, True]
    assert batch["KL_input_ids"].tolist() == [[1, 2, 30, 6], [3, 10, 11, 0], [4, 5, 20, 0]]
    assert batch["KL_completion_mask"].tolist() == [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    assert batch["KL_attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1]]
    alone = LabelledCollator(0, max_length=4, with_mismatched=False)(ROWS)
    assert not [name for name in alone if name.startswith("KL_")]

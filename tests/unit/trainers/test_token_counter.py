"""What is counted of batches, and how the counts go on after a resume."""

from __future__ import annotations

import torch

from component.trainers.token_counter import TokenCounter, TokenCounts


def batch(labels: list[list[int]], mask: list[list[int]] | None) -> dict[str, torch.Tensor]:
    content = {"labels": torch.tensor(labels)}
    return content if mask is None else {**content, "attention_mask": torch.tensor(mask)}


def test_counts(tmp_path) -> None:
    """The label of a row's first token is never predicted, so it is no supervised token."""
    counter = TokenCounter()
    counter.add([batch([[5, -100, 6, 7], [-100, 8, -100, -100]], [[1, 1, 1, 1], [1, 1, 0, 0]])])
    assert counter.read() == TokenCounts(supervised=3, real=6, padded=8)
    counter.add([batch([[1, 2, 3]], None), batch([[-100, 2]], [[1, 1]])])
    assert counter.read() == TokenCounts(supervised=6, real=11, padded=13)

    counter.save(tmp_path)
    again = TokenCounter()
    again.load(tmp_path)
    again.add([batch([[1, 2, 3]], None)])
    assert again.read() == TokenCounts(supervised=8, real=14, padded=16)


def test_speed_leaves_the_first_lap_out() -> None:
    counter = TokenCounter()
    assert counter.tokens_per_second() is None
    for number in (1, 2, 2):
        counter.add([batch([[1] * number * 4], [[1] * number * 2 + [0] * number * 2])])
        counter.end_lap()
    assert [(lap.real, lap.padded) for lap in counter.laps] == [(2, 4), (4, 8), (4, 8)]
    seconds = sum(lap.seconds for lap in counter.laps[1:])
    assert counter.tokens_per_second() == (8 / seconds, 16 / seconds)

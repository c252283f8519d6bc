"""Prompts in groups: each is answered several times, so that its answers can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, Sampler

from component.data.encoders.prompts import PROMPT_COLUMN
from component.data.order import EpochOrderSampler
from component.data.rows import Prepared
from component.data.samples import Samples

#: The key under which a row of a PromptDataset holds its sample.
SAMPLE = "sample"


class PromptDataset(Dataset[dict[str, Any]]):
    """Gives each prompt as {"prompt": text or messages, "sample": what was prepared of it}.

    Args:
        samples: prompts, in the order of the data; the sampler decides the order of training.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        assert isinstance(sample, Prepared)
        return {"prompt": sample.columns[PROMPT_COLUMN], SAMPLE: sample}


class GroupSampler(Sampler[int]):
    """Repeats the prompts of an epoch in the way that TRL's grpo reads them.

    The order of the epoch is cut into generation batches. In each, every prompt stands `num_generations` times in a
    row, and the batch as a whole `num_passes` times: the trainer samples completions at the first, and learns from
    these in all. TRL's own sampler leaves out the prompts at the end that fill no batch, and after a resume shuffles as
    in the first epoch; here the last batch is filled up with prompts from the beginning of the same order, so that each
    prompt is answered in each epoch.

    Args:
        order: of the prompts; its epoch is the sampler's.
        num_generations: completions of a prompt.
        prompts_per_batch: different prompts of a generation batch, over all processes.
        num_passes: micro-batches that one generation batch is divided into, times the optimizer passes over it.
        drop_last: leave out the prompts that fill no batch.
    """

    def __init__(
        self,
        order: EpochOrderSampler,
        *,
        num_generations: int,
        prompts_per_batch: int,
        num_passes: int,
        drop_last: bool = False,
    ) -> None:
        self._order = order
        self._num_generations = num_generations
        self._prompts_per_batch = prompts_per_batch
        self._num_passes = num_passes
        self._drop_last = drop_last

    @property
    def num_batches(self) -> int:
        """Generation batches of an epoch."""
        rounds = len(self._order) / self._prompts_per_batch
        return int(rounds) if self._drop_last else -(-len(self._order) // self._prompts_per_batch)

    def __len__(self) -> int:
        return self.num_batches * self._prompts_per_batch * self._num_generations * self._num_passes

    def __iter__(self) -> Iterator[int]:
        order = list(self._order)
        for batch in range(self.num_batches):
            places = range(batch * self._prompts_per_batch, (batch + 1) * self._prompts_per_batch)
            prompts = [order[place % len(order)] for place in places]
            for _ in range(self._num_passes):
                yield from (prompt for prompt in prompts for _ in range(self._num_generations))

"""Prepared samples as torch datasets."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from component.data.samples import Samples


class PreparedDataset(Dataset[dict[str, list[int]]]):
    """Gives each sample as {"input_ids": [...], "labels": [...]}, labels -100 where not supervised.

    Args:
        samples: in the order of the data; the sampler decides the order of training.

    Attributes:
        num_supervised_tokens: over all samples, as the loss counts them.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.num_supervised_tokens = int(samples.num_supervised_tokens.sum())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        sample = self.samples[index]
        return {"input_ids": list(sample.input_ids), "labels": sample.labels()}


class PackedDataset(Dataset[dict[str, list[list[int]]]]):
    """Gives each pack as {"input_ids": [[...], ...], "labels": [[...], ...]}, a list for each of its samples.

    Args:
        samples: in the order of the data.
        packs: indices into them, from `pack`; the sampler decides the order of training.
    """

    def __init__(self, samples: Samples, packs: Sequence[Sequence[int]]) -> None:
        self.samples = samples
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, list[list[int]]]:
        samples = [self.samples[number] for number in self.packs[index]]
        return {
            "input_ids": [list(sample.input_ids) for sample in samples],
            "labels": [sample.labels() for sample in samples],
        }

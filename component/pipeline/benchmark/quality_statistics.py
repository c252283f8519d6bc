"""Means over seeds with 95 % t-intervals, of scores and of differences between runs of the same seed."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

#: Quantile 0.975 of Student's t by degrees of freedom; with more than these the normal one is near enough.
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL_QUANTILE = 1.960


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95 % interval; None where there is one seed."""

    mean: float
    half: float | None
    num_seeds: int


def interval(values: Collection[float]) -> Interval:
    """The mean of values of different seeds, at least one, and its t-interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, len(values))
    freedom = len(values) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else NORMAL_QUANTILE
    return Interval(mean, quantile * statistics.stdev(values) / len(values) ** 0.5, len(values))


def paired(mine: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    """Mine less the other, over the seeds that both have; None where there is none."""
    differences = [mine[seed] - other[seed] for seed in mine if seed in other]
    return interval(differences) if differences else None

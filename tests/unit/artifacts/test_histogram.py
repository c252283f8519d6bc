"""Bins of lengths, their bars and their picture."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from component.artifacts.histogram import Bin, LengthPlot, bar_lines, length_bins, plot_lengths


@pytest.mark.parametrize(
    ("lengths", "max_bins", "bins"),
    [
        ([], 5, []),
        ([7], 5, [(7, 7, 1)]),
        ([3, 12, 14], 2, [(1, 10, 1), (11, 20, 2)]),
        ([3, 12, 14], 3, [(1, 5, 1), (6, 10, 0), (11, 15, 2)]),
        ([20, 21], 1, [(1, 50, 2)]),
        ([10, 11, 2048], 4, [(1, 1000, 2), (1001, 2000, 0), (2001, 3000, 1)]),
    ],
)
def test_bins_have_round_limits(lengths: list[int], max_bins: int, bins: list[tuple[int, int, int]]) -> None:
    assert length_bins(np.array(lengths, dtype=np.int64), max_bins=max_bins) == tuple(Bin(*item) for item in bins)


def test_every_sample_is_in_a_bin() -> None:
    lengths = np.random.default_rng(0).integers(1, 5000, 1000)
    bins = length_bins(lengths, max_bins=16)
    assert len(bins) <= 16
    assert [item.count for item in bins] == [int(((lengths >= b.first) & (lengths <= b.last)).sum()) for b in bins]


def test_bars() -> None:
    assert bar_lines((Bin(1, 10, 1), Bin(11, 20, 2), Bin(21, 30, 0))) == [
        " 1-10  1  " + "#" * 20,
        "11-20  2  " + "#" * 40,
        "21-30  0",
    ]
    assert bar_lines((Bin(1, 1, 1000), Bin(2, 2, 1))) == ["1  1,000  " + "#" * 40, "2      1  #"]
    assert bar_lines(()) == []


@pytest.mark.parametrize("num_splits", [0, 1, 2])
def test_the_picture_is_a_png_that_grows_with_the_splits(num_splits: int) -> None:
    plot = LengthPlot("train: 2 samples", (Bin(1, 10, 1), Bin(11, 20, 1)), (("p50", 5), ("max_seq_length", 20)))
    picture = plot_lengths([plot] * num_splits + [LengthPlot("evaluation: 0 samples", (), ())])
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (1152, pytest.approx(403 * max(1, num_splits), abs=1))

"""The disk that a run needs is counted before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from component.config.errors import MachineError
from component.config.schema import TrainingSection
from component.pipeline.disk import check_disk, required_bytes

WEIGHTS = 100 * 4  # float32


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"save_strategy": "no"}, WEIGHTS),
        ({"save_steps": 10.0}, WEIGHTS + 3 * (WEIGHTS + 100 * 8)),
        ({"save_steps": 10.0, "save_total_limit": 1}, WEIGHTS + 2 * (WEIGHTS + 100 * 8)),
        ({"save_steps": 10.0, "save_only_model": True}, WEIGHTS + 3 * WEIGHTS),
        ({"save_steps": 10.0, "optim": "adamw_8bit"}, WEIGHTS + 3 * (WEIGHTS + 100 * 2)),
    ],
)
def test_required_bytes(settings: dict, expected: int) -> None:
    assert required_bytes(TrainingSection(**settings), nn.Linear(10, 10, bias=False), num_steps=25) == expected


def test_too_little_disk_is_refused(tmp_path: Path) -> None:
    settings = TrainingSection(save_steps=1.0)
    with pytest.raises(
        MachineError, match=r"^output_dir: .* GiB free and the run writes up to .*lower save_total_limit"
    ):
        check_disk(settings, nn.Linear(100, 100), num_steps=10**12, folder=tmp_path)

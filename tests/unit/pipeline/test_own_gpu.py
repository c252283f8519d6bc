"""The card of this machine, as nvidia-smi tells of it: a plan without --gpu is for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.plan_inputs import own_gpu, planned_gpu
from component.pipeline.plan_run import plan_config

LLAMA = "train_args/sft/qlora/llama3-8b.json"
UNIFIED, H200 = "NVIDIA GB10, 580.95.05, [N/A]", "NVIDIA H200, 580.95.05, 143771 MiB"


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`answer(line, ...)`: what nvidia-smi says from then on."""

    def write(*lines: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines), encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return write


def test_the_first_whose_memory_is_told(answer) -> None:
    for lines in ([H200], [UNIFIED, H200]):
        answer(*lines)
        assert own_gpu().title == "NVIDIA H200"
        assert own_gpu().memory_bytes == 143771 * 2**20
    answer(UNIFIED)
    assert own_gpu() is None


def test_memory_that_is_not_told_is_asked_for(answer, repository: Path) -> None:
    """Not a plan for another card, and no traceback."""
    config = load_config(repository / LLAMA)
    answer(UNIFIED)
    said = r"^--gpu: nvidia-smi does not tell how much memory NVIDIA GB10 has, but says '\[N/A\]'; for another card"
    with pytest.raises(UserError, match=said):
        plan_config(config)
    assert plan_config(config, "h200").plan.verdict == "fits"
    answer()
    assert planned_gpu(None) is None

"""Ranks from launcher variables, and the choice of one GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from component.config.errors import MachineError
from component.runtime import distributed


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "LOCAL_SIZE",
        "CUDA_VISIBLE_DEVICES",
        *distributed.LAUNCHER_MARKS,
    ):
        # setenv first: monkeypatch then restores what use_one_gpu writes, too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_without_a_launcher_this_is_the_only_process() -> None:
    values = (distributed.rank(), distributed.local_rank(), distributed.world_size())
    assert (distributed.has_launcher(), *values) == (False, 0, 0, 1)
    assert distributed.is_main_process()


def test_a_launcher_gives_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    values = (distributed.rank(), distributed.local_rank(), distributed.world_size())
    assert (distributed.has_launcher(), *values) == (True, 5, 1, 8)
    assert not distributed.is_main_process()


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({}, ["torchrun", "--nproc_per_node=4"]),
        ({"LOCAL_WORLD_SIZE": "2"}, ["torchrun", "--nnodes=2", "--nproc_per_node=2"]),
        ({"ACCELERATE_DYNAMO_USE_DYNAMIC": "False"}, ["accelerate", "launch", "--num_processes=4"]),
        ({"ACCELERATE_CONFIG_DS_FIELDS": ""}, ["accelerate", "launch", "--num_processes=4"]),
        ({"CROSS_SIZE": "1", "LOCAL_SIZE": "4"}, ["deepspeed", "--num_gpus=4"]),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, ["torchrun", "--nproc_per_node=4"]),
    ],
)
def test_the_launcher_is_named_with_its_processes(
    monkeypatch: pytest.MonkeyPatch, marks: dict[str, str], words: list[str]
) -> None:
    assert distributed.launcher_words() == ["python"]
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", **marks}.items():
        monkeypatch.setenv(name, value)
    assert distributed.launcher_words() == words


def test_a_scheduler_that_numbers_machines_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_a_rank_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "one")
    with pytest.raises(MachineError, match="environment variable LOCAL_RANK: got 'one'; launchers set it"):
        distributed.rank()


@pytest.mark.parametrize(
    ("visible", "num_gpus", "narrowed", "noticed"),
    [
        (None, 0, "0", False),
        (None, 1, "0", False),
        (None, 4, "0", True),
        ("", 4, "", False),
        ("3", 4, "3", False),
        ("2, 3", 4, "2", True),
        ("GPU-8932f937,GPU-12ab", 4, "GPU-8932f937", True),
    ],
)
def test_one_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, num_gpus: int, narrowed: str, noticed: bool
) -> None:
    monkeypatch.setattr(distributed, "count_nvidia_gpus", lambda: num_gpus)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    notice = distributed.use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == narrowed
    assert (notice is not None) == noticed


def test_the_notice_names_number_and_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert distributed.use_one_gpu() == (
        "one of 3 GPUs is used (CUDA_VISIBLE_DEVICES=4); torchrun or accelerate launch use more"
    )


def test_a_launcher_keeps_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert distributed.use_one_gpu() is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_gpus_are_counted_in_proc(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(distributed, "NVIDIA_PROC_FOLDER", tmp_path)
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:02:00.0").mkdir()
    assert distributed.count_nvidia_gpus() == 2


def test_torch_is_not_imported(repository) -> None:
    code = (
        "import sys\n"
        "from component.runtime import distributed, environment, hardware, logging, seeds\n"
        "distributed.use_one_gpu()\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"

"""A run folder is written by one process."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from component.artifacts.lock import lock_folder
from component.config.errors import UserError

HOLDER = """
import sys
from pathlib import Path
from component.artifacts.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen]:
    repository = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_elsewhere(folder):
        for _ in range(2):
            with pytest.raises(UserError) as raised:
                lock_folder(folder)
        assert str(raised.value) == (
            f"output_dir: {folder} is being written by another process; wait for it or choose another output_dir"
        )
        assert raised.value.exit_code == 2
    assert lock_folder(folder) is not None, "killed, it holds nothing"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_a_lock_ends_with_its_object(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    assert lock_folder(tmp_path / "sub" / "..") is lock, "runs of one process follow one another"
    held = subprocess.run(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[3],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert held.returncode == 1 and "is being written by another process" in held.stderr
    del lock
    gc.collect()
    with held_elsewhere(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_a_folder_that_was_deleted_is_locked_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = lock_folder(folder)
    shutil.rmtree(folder)
    second = lock_folder(folder)
    assert second is not first
    del first
    with pytest.raises(AssertionError), held_elsewhere(folder):
        pass

"""Files that several processes read and write anew: each waits until another is through with its change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from component.artifacts.strict_json import naming_disk_errors, to_bytes, write_atomically


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from a file or folder while it is read and written anew.

    The system releases the lock when the process ends, however it does.

    Args:
        path: it need not exist, but the folder that it is in must.

    Raises:
        MachineError: the place cannot be written.
    """
    with naming_disk_errors(path), FileLock(path.with_name(f".{path.name}.lock")):
        yield


def write_if_changed(path: Path, text: str) -> None:
    """Write a file whole, unless it holds the text: a process that reads it is not disturbed by another's same text.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    if not path.is_file() or path.read_bytes() != to_bytes(text):
        write_atomically(path, text)

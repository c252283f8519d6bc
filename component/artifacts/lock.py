"""One process at a time writes a run folder, or a folder of a benchmark."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from weakref import WeakValueDictionary

from component.artifacts.strict_json import naming_disk_errors
from component.config.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there a second process is not noticed
    fcntl = None

FILE_NAME = ".lock"
#: File systems without locks, and folders that can only be read: whoever writes there hears of it when it writes.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EACCES, errno.EPERM, errno.EROFS)


class FolderLock:
    """A lock that is held as long as this object lives; the system releases it when the process ends, however it does.

    It is a POSIX record lock: children of the process do not inherit it, so data workers that outlive a killed run do
    not hold its folder.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_of(self, path: Path) -> bool:
        """Whether this is the file at `path` still, which else was deleted and perhaps made again."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def __del__(self) -> None:
        os.close(self._descriptor)


# Closing any descriptor of a file drops all record locks that the process has on it, so there is one for each folder.
_held: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def lock_folder(folder: Path, *, key: str = "output_dir") -> FolderLock | None:
    """Take the lock of a folder; the folder is made where it does not exist.

    Within one process a folder can be locked again: its runs follow one another.

    Args:
        key: or option that named the folder, for the message.

    Returns:
        The lock, to be kept while the folder is written; None where there are no locks.

    Raises:
        UserError: another process holds it.
        MachineError: the disk is full.
    """
    with naming_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return None
    path = folder.resolve() / FILE_NAME
    held = _held.get(path)
    if held is not None and held.is_of(path):
        return held
    with naming_disk_errors(path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return None
            raise
    lock = FolderLock(descriptor)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise UserError(
                f"{key}: {folder.resolve()} is being written by another process; wait for it or choose another {key}"
            ) from None
        if error.errno in NO_LOCKS:
            return None
        raise
    _held[path] = lock
    return lock

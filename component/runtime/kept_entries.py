"""A cache as a folder of entries, each below its key: locked while one is made, held while it is read, bounded, listed.

An entry is complete once its last file is there, whose name the cache gives.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.runtime.cache_folder import cache_folder

try:
    import fcntl
except ImportError:  # Windows, where a file that is mapped cannot be removed anyway
    fcntl = None

#: Marks a folder of the cache; also what backup programs leave out (https://bford.info/cachedir).
CACHE_TAG = "CACHEDIR.TAG"
TAG_CONTENT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Rows that Lampyris has prepared; script/cache.py removes them.\n"
)
_KEY_LENGTH = 64
_SECONDS_BETWEEN_LINES = 30


@contextmanager
def naming_cache_errors(folder: Path) -> Iterator[None]:
    """Turn what keeps the cache from being used into a line for the user.

    Raises:
        UserError: naming the key of the config.
    """
    try:
        yield
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cache_dir: {folder} cannot be used ({reason}); mend that, or set cache_dir to another folder"
        ) from None


def mark_as_cache(folder: Path) -> None:
    """Say in a folder that it belongs to the cache.

    Raises:
        OSError: it cannot be written.
    """
    tag = folder / CACHE_TAG
    if not tag.exists():
        tag.write_bytes(TAG_CONTENT)


class Hold:
    """A lock on a file; the system releases it when the process ends, however it does.

    Args:
        path: an existing file.
        alone: shared with nobody, rather than with all who hold it so.
        wait: for those who hold it otherwise, rather than raise BlockingIOError.

    Raises:
        OSError: there is no such file, or it cannot be locked so.
    """

    def __init__(self, path: Path, *, alone: bool = False, wait: bool = False) -> None:
        # Network file systems give a lock that is not shared only to those who may write.
        self._descriptor = os.open(path, os.O_RDWR if alone else os.O_RDONLY)
        if fcntl is not None:
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.flock(self._descriptor, kind if wait else kind | fcntl.LOCK_NB)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@dataclass(frozen=True)
class KeptEntry:
    """One entry in a list of a cache.

    Attributes:
        num_bytes: on disk.
        last_used: seconds since the epoch.
        is_held: whether a process works with it.
    """

    key: str
    num_bytes: int
    last_used: float
    is_held: bool


class KeptEntries:
    """The entries of one part of the cache.

    Args:
        part: its name, that of a folder.
        complete: name of the last file of an entry.
        cache_dir: the config's `cache_dir`; None for the user's own cache folder.

    Raises:
        UserError: it is in the home of a user whom there is not.
    """

    def __init__(self, part: str, complete: str, cache_dir: str | None) -> None:
        try:
            self.folder = cache_folder(part) if cache_dir is None else Path(cache_dir).expanduser().absolute() / part
        except RuntimeError as error:
            shown = "no home directory is known for the cache" if cache_dir is None else f"{cache_dir}: no such home"
            raise UserError(f"cache_dir: {shown}; set it to the full path of a folder") from error
        self._complete = complete

    def path(self, key: str) -> Path:
        """The folder of an entry, be it there or not."""
        return self.folder / key

    @contextmanager
    def lock(self, key: str, say_waiting: Callable[[], None]) -> Iterator[None]:
        """Work on an entry alone; another process that does is waited for, one that was killed is not.

        Args:
            say_waiting: called now and then while it is waited for.

        Raises:
            UserError: the folder cannot be used.
        """
        lock = self._lock(key)
        waited = 0
        while not self._acquire(lock, timeout=_SECONDS_BETWEEN_LINES if waited else 0):
            say_waiting()
            waited += 1
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def lock_if_free(self, key: str) -> Iterator[bool]:
        """Work on an entry alone unless another process does; says whether none does.

        Raises:
            UserError: the folder cannot be used.
        """
        lock = self._lock(key)
        if not self._acquire(lock, timeout=0):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def hold(self, key: str, *, wait: bool = False) -> Hold:
        """Keep a complete entry from being removed by other processes, as long as what is returned lives.

        Raises:
            OSError: it is incomplete, or about to be removed.
        """
        return Hold(self.path(key) / self._complete, wait=wait)

    def hold_alone(self, key: str) -> Hold | None:
        """Keep a complete entry to oneself; None where it is incomplete.

        Raises:
            OSError: a process, this one included, holds it, or it is another user's.
        """
        try:
            return Hold(self.path(key) / self._complete, alone=True)
        except FileNotFoundError:
            return None

    def mark_used(self, key: str) -> None:
        """Make it the most recently used entry."""
        with suppress(OSError):  # of another user, who lets others read it, or on a disk that is only read
            os.utime(self.path(key) / self._complete)

    def entries(self) -> list[KeptEntry]:
        """All entries, the most recently used first."""
        if not self.folder.is_dir():
            return []
        with naming_cache_errors(self.folder):
            keys = [path.name for path in self.folder.iterdir() if len(path.name) == _KEY_LENGTH and path.is_dir()]
            entries = [entry for key in keys if (entry := self._entry(key)) is not None]
        return sorted(entries, key=lambda entry: (-entry.last_used, entry.key))

    def remove(self, key: str) -> bool:
        """Remove an entry unless a process works with it; says whether it did."""
        with self.lock_if_free(key) as is_free:
            if not is_free:
                return False
            try:
                alone = self.hold_alone(key)  # until all of it is gone
            except OSError:
                return False
            with naming_cache_errors(self.folder):
                if self.path(key).exists():
                    shutil.rmtree(self.path(key))
            del alone
            return True

    def shrink(self, max_bytes: float) -> list[str]:
        """Remove the entries that were not used for longest until the rest fits; those in use stay.

        Returns:
            The keys that were removed.
        """
        entries = self.entries()
        total = sum(entry.num_bytes for entry in entries)
        removed = []
        for entry in reversed(entries):
            if total <= max_bytes:
                break
            if self.remove(entry.key):
                total -= entry.num_bytes
                removed.append(entry.key)
        return removed

    def _entry(self, key: str) -> KeptEntry | None:
        folder = self.path(key)
        try:
            num_bytes = sum(path.stat().st_size for path in folder.iterdir())
            complete = folder / self._complete
            last_used = (complete if complete.exists() else folder).stat().st_mtime
        except FileNotFoundError:  # another process has just removed it
            return None
        return KeptEntry(key, num_bytes, last_used, self._is_held(key))

    def _is_held(self, key: str) -> bool:
        """Whether any process, this one included, holds it."""
        try:
            self.hold_alone(key)
        except OSError:
            return True
        return False

    def _lock(self, key: str) -> Any:
        import filelock

        folder = self.folder / "locks"
        with naming_cache_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            mark_as_cache(folder)
        return filelock.FileLock(folder / f"{key}.lock", poll_interval=0.2)

    def _acquire(self, lock: Any, *, timeout: float) -> bool:
        import filelock

        with naming_cache_errors(self.folder):
            try:
                lock.acquire(timeout=timeout)
            except filelock.Timeout:
                return False
        return True

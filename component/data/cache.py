"""The cache of prepared rows: a folder of entries that is locked, listed, bounded and cleared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
from loguru import logger

from component.config.errors import UserError
from component.data.cache_entry import COMPLETE, CacheEntry, Summary, naming_cache_errors
from component.data.own_folders import mark_as_cache
from component.runtime.cache_folder import cache_folder

_KEY_LENGTH = 64
_SECONDS_BETWEEN_LINES = 30


@dataclass(frozen=True)
class CacheItem:
    """One entry in a list of the cache.

    Attributes:
        key: hash of all that decided its rows.
        num_bytes: on disk.
        last_used: seconds since the epoch.
        summary: what it holds; None where it is incomplete.
        is_held: whether a process works with it.
    """

    key: str
    num_bytes: int
    last_used: float
    summary: Summary | None
    is_held: bool


class Cache:
    """The entries in a folder.

    Args:
        cache_dir: the config's `cache_dir`; None for the user's own cache folder.
    """

    def __init__(self, cache_dir: str | None) -> None:
        own = None if cache_dir is None else Path(cache_dir).expanduser().absolute() / "data"
        self.folder = own or cache_folder("data")

    def entry(self, key: str) -> CacheEntry:
        """The entry of a key, be it there or not."""
        return CacheEntry(self.folder / key)

    @contextmanager
    def lock(self, key: str, what: str) -> Iterator[None]:
        """Work on an entry alone; another process that does is waited for, one that was killed is not.

        Args:
            what: the data, for the line that says what is waited for.

        Raises:
            UserError: the folder cannot be used.
        """
        lock = self._lock(key)
        waited = 0
        while not self._acquire(lock, timeout=_SECONDS_BETWEEN_LINES if waited else 0):
            chunks = len(list((self.folder / key).glob("chunk-*.json")))
            logger.info(f"waiting for another process that prepares {what} ({chunks:,} chunks are written)")
            waited += 1
        try:
            yield
        finally:
            lock.release()

    def items(self) -> list[CacheItem]:
        """All entries, the most recently used first."""
        if not self.folder.is_dir():
            return []
        with naming_cache_errors(self.folder):
            keys = [path.name for path in self.folder.iterdir() if len(path.name) == _KEY_LENGTH and path.is_dir()]
            items = [item for key in keys if (item := self._item(key)) is not None]
        return sorted(items, key=lambda item: (-item.last_used, item.key))

    def remove(self, key: str) -> bool:
        """Remove an entry unless a process works with it; says whether it did."""
        lock = self._lock(key)
        if not self._acquire(lock, timeout=0):
            return False
        try:
            alone = self.entry(key).hold_alone()  # until all of it is gone
        except OSError:
            return False
        else:
            with naming_cache_errors(self.folder):
                if (self.folder / key).exists():
                    shutil.rmtree(self.folder / key)
            del alone
            return True
        finally:
            lock.release()

    def shrink(self, max_bytes: float) -> list[str]:
        """Remove the entries that were not used for longest until the rest fits; those in use stay.

        Returns:
            The keys that were removed.
        """
        items = self.items()
        total = sum(item.num_bytes for item in items)
        removed = []
        for item in reversed(items):
            if total <= max_bytes:
                break
            if self.remove(item.key):
                total -= item.num_bytes
                removed.append(item.key)
        return removed

    def _item(self, key: str) -> CacheItem | None:
        entry = self.entry(key)
        try:
            num_bytes = sum(path.stat().st_size for path in entry.folder.iterdir())
            complete = entry.folder / COMPLETE
            last_used = (complete if complete.exists() else entry.folder).stat().st_mtime
        except FileNotFoundError:  # another process has just removed it
            return None
        return CacheItem(key, num_bytes, last_used, entry.summary(), entry.is_held())

    def _lock(self, key: str) -> filelock.BaseFileLock:
        folder = self.folder / "locks"
        with naming_cache_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            mark_as_cache(folder)
        return filelock.FileLock(folder / f"{key}.lock", poll_interval=0.2)

    def _acquire(self, lock: filelock.BaseFileLock, *, timeout: float) -> bool:
        with naming_cache_errors(self.folder):
            try:
                lock.acquire(timeout=timeout)
            except filelock.Timeout:
                return False
        return True


def find_item(items: list[CacheItem], start: str) -> CacheItem:
    """The entry whose key begins so.

    Raises:
        UserError: none does, or several do.
    """
    found = [item for item in items if item.key.startswith(start)]
    if len(found) != 1:
        what = "no entry has a key that begins so" if not found else f"{len(found)} entries have keys that begin so"
        raise UserError(f"{start}: {what}; `script/cache.py list` shows the keys")
    return found[0]

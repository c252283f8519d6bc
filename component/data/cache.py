"""The cache of prepared rows: entries that are locked, listed, bounded and cleared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger

from component.config.errors import UserError
from component.data.cache_entry import COMPLETE, CacheEntry, Summary
from component.runtime.kept_entries import KeptEntries, KeptEntry

Entry = TypeVar("Entry", bound=KeptEntry)


@dataclass(frozen=True)
class CacheItem(KeptEntry):
    """One entry in a list of the cache, whose key is a hash of all that decided its rows.

    Attributes:
        summary: what it holds; None where it is incomplete.
    """

    summary: Summary | None = None


class Cache:
    """The entries in a folder.

    Args:
        cache_dir: the config's `cache_dir`; None for the user's own cache folder.
    """

    def __init__(self, cache_dir: str | None) -> None:
        self._kept = KeptEntries("data", COMPLETE, cache_dir)
        self.folder = self._kept.folder

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

        def say_waiting() -> None:
            """Tell how far the other process is."""
            chunks = len(list((self.folder / key).glob("chunk-*.json")))
            logger.info(f"waiting for another process that prepares {what} ({chunks:,} chunks are written)")

        with self._kept.lock(key, say_waiting):
            yield

    def items(self) -> list[CacheItem]:
        """All entries, the most recently used first."""
        return [CacheItem(**vars(entry), summary=self.entry(entry.key).summary()) for entry in self._kept.entries()]

    def remove(self, key: str) -> bool:
        """Remove an entry unless a process works with it; says whether it did."""
        return self._kept.remove(key)

    def shrink(self, max_bytes: float) -> list[str]:
        """Remove the entries that were not used for longest until the rest fits; returns their keys."""
        return self._kept.shrink(max_bytes)


def find_item(items: Sequence[Entry], start: str) -> Entry:
    """The entry whose key begins so.

    Raises:
        UserError: none does, or several do.
    """
    found = [item for item in items if item.key.startswith(start)]
    if len(found) != 1:
        what = "no entry has a key that begins so" if not found else f"{len(found)} entries have keys that begin so"
        raise UserError(f"{start}: {what}; `script/cache.py list` shows the keys")
    return found[0]

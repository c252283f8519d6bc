"""The cache of prepared rows as a user sees it; script/cache.py is the door to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from component.artifacts.card import duration
from component.data.cache import Cache, CacheItem, find_item

#: Of a key: enough to tell entries apart.
_SHOWN_KEY = 12
_SHOWN_FILES = 3


def list_cache(cache_dir: str | None, console: Console) -> None:
    """Print the entries of a cache, the most recently used first."""
    cache = Cache(cache_dir)
    items = cache.items()
    console.print(f"{cache.folder}: {sum(item.num_bytes for item in items) / 2**30:,.2f} GiB", highlight=False)
    table = Table(box=box.SIMPLE)
    table.add_column("key", no_wrap=True)
    table.add_column("files", overflow="fold")
    for name in ("rows", "tokens", "MiB", "last used"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in items:
        table.add_row(*_cells(item))
    if items:
        console.print(table)


def clear_cache(cache_dir: str | None, keys: Sequence[str], *, everything: bool) -> Iterator[str]:
    """Remove entries that no process works with, and say what became of each.

    Args:
        keys: beginnings of the keys of entries.
        everything: remove all entries.

    Raises:
        UserError: a key is no entry's or that of several.
    """
    cache = Cache(cache_dir)
    items = cache.items()
    chosen = items if everything else [find_item(items, key) for key in keys]
    for item in chosen:
        is_removed = cache.remove(item.key)
        size = f"{item.num_bytes / 2**20:,.1f} MiB"
        yield f"{item.key[:_SHOWN_KEY]}: " + (f"removed, {size}" if is_removed else "in use by a process, kept")
    if not chosen:
        yield f"{cache.folder} holds no prepared rows"


def _cells(item: CacheItem) -> tuple[str, ...]:
    summary = item.summary
    size, age = f"{item.num_bytes / 2**20:,.1f}", f"{duration(time.time() - item.last_used)} ago"
    if summary is None:
        return item.key[:_SHOWN_KEY], "incomplete", "", "", size, age
    more = f" and {len(summary.files) - _SHOWN_FILES:,} more" if len(summary.files) > _SHOWN_FILES else ""
    files = ", ".join(summary.files[:_SHOWN_FILES]) + more
    used = "in use" if item.is_held else age
    return item.key[:_SHOWN_KEY], files, f"{summary.num_rows:,}", f"{summary.num_tokens:,}", size, used

"""The caches as a user sees them: prepared rows and quantized weights; script/cache.py is the door to them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from component.artifacts.card import duration
from component.data.cache import Cache, CacheItem, find_item
from component.models.quantized_cache import quantized_entries
from component.models.quantized_entry import read_entry
from component.runtime.kept_entries import KeptEntries, KeptEntry

#: Of a key: enough to tell entries apart.
_SHOWN_KEY = 12
_SHOWN_FILES = 3


def list_cache(cache_dir: str | None, console: Console) -> None:
    """Print the entries of the caches, the most recently used first."""
    rows, weights = Cache(cache_dir), quantized_entries(cache_dir)
    items, kept = rows.items(), weights.entries()
    _print_size(rows, items, console)
    if items:
        names = ("rows", "tokens", "MiB", "last used")
        console.print(_table("files", names, (_cells(item) for item in items)))
    _print_size(weights, kept, console)
    if kept:
        names = ("quantized", "MiB", "last used")
        console.print(_table("model", names, (_weight_cells(weights, entry) for entry in kept)))


def clear_cache(cache_dir: str | None, keys: Sequence[str], *, everything: bool) -> Iterator[str]:
    """Remove entries that no process works with, and say what became of each.

    Args:
        keys: beginnings of the keys of entries.
        everything: remove all entries.

    Raises:
        UserError: a key is no entry's or that of several.
    """
    rows, weights = Cache(cache_dir), quantized_entries(cache_dir)
    owners: dict[str, Cache | KeptEntries] = {item.key: rows for item in rows.items()}
    owners |= {entry.key: weights for entry in weights.entries()}
    items = [*rows.items(), *weights.entries()]
    chosen = items if everything else [find_item(items, key) for key in keys]
    for item in chosen:
        is_removed = owners[item.key].remove(item.key)
        size = f"{item.num_bytes / 2**20:,.1f} MiB"
        yield f"{item.key[:_SHOWN_KEY]}: " + (f"removed, {size}" if is_removed else "in use by a process, kept")
    if not chosen:
        yield f"{rows.folder} holds no prepared rows, {weights.folder} no quantized weights"


def _print_size(cache: Cache | KeptEntries, entries: Sequence[KeptEntry], console: Console) -> None:
    console.print(f"{cache.folder}: {sum(entry.num_bytes for entry in entries) / 2**30:,.2f} GiB", highlight=False)


def _table(what: str, names: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("key", no_wrap=True)
    table.add_column(what, overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    return table


def _age(entry: KeptEntry) -> str:
    return f"{duration(time.time() - entry.last_used)} ago"


def _cells(item: CacheItem) -> tuple[str, ...]:
    summary = item.summary
    size = f"{item.num_bytes / 2**20:,.1f}"
    if summary is None:
        return item.key[:_SHOWN_KEY], "incomplete", "", "", size, _age(item)
    more = f" and {len(summary.files) - _SHOWN_FILES:,} more" if len(summary.files) > _SHOWN_FILES else ""
    files = ", ".join(summary.files[:_SHOWN_FILES]) + more
    used = "in use" if item.is_held else _age(item)
    return item.key[:_SHOWN_KEY], files, f"{summary.num_rows:,}", f"{summary.num_tokens:,}", size, used


def _weight_cells(weights: KeptEntries, entry: KeptEntry) -> tuple[str, ...]:
    stored, size = read_entry(weights.path(entry.key)), f"{entry.num_bytes / 2**20:,.1f}"
    if stored is None:
        return entry.key[:_SHOWN_KEY], "incomplete", "", size, _age(entry)
    return entry.key[:_SHOWN_KEY], stored.base, stored.settings, size, "in use" if entry.is_held else _age(entry)

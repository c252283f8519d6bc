"""The rows of one entry of the config: from the cache where it has them, else prepared into it."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from component.config.schema import DataSection
from component.data.cache import Cache
from component.data.cache_entry import CachedRows, Summary
from component.data.cache_key import cache_key
from component.data.encoders.interface import RowEncoder
from component.data.filling import EntryFiles, fill_entry
from component.data.tally import Tally

DAMAGED = "the cache of {name} was damaged: {kept:,} of its rows are kept, those after them are prepared again"


def prepare_entry(
    source: EntryFiles, hashes: Sequence[str], data: DataSection, encoder: RowEncoder, cache: Cache
) -> tuple[CachedRows, tuple[str, ...]]:
    """Prepare the rows of an entry, or find them in the cache.

    Args:
        source: its files.
        hashes: of the content of each file.
        data: the config's data section.
        encoder: of the rows.

    Returns:
        The rows and notices.

    Raises:
        UserError: the cache cannot be used.
        DataError: the files cannot be read, or a row is at fault with `truncation: error`.
    """
    names = tuple(file.name for file in source.files)
    if not names:
        return CachedRows((), (), Tally(), None), ()
    key = cache_key(source.files, hashes, source.limit, data, encoder)
    entry = cache.entry(key)
    opened = entry.open()
    if opened is None:
        return _prepare_alone(key, source, names, data, encoder, cache)
    stored, hold = opened
    entry.mark_used()
    return CachedRows(stored.paths, names, stored.tally, hold), ()


def _prepare_alone(
    key: str, source: EntryFiles, names: tuple[str, ...], data: DataSection, encoder: RowEncoder, cache: Cache
) -> tuple[CachedRows, tuple[str, ...]]:
    """Prepare what is missing while no other process does; perhaps one has done it meanwhile."""
    entry = cache.entry(key)
    with cache.lock(key, source.name):
        stored = entry.load()
        notices = (DAMAGED.format(name=source.name, kept=stored.tally.rows_read),) if stored.is_damaged else ()
        for notice in notices:
            logger.warning(notice)
        paths, tally = stored.paths, stored.tally
        if not stored.is_complete:
            if paths:
                logger.info(f"{source.name}: {tally.rows_read:,} rows are prepared already; going on after them")
            paths, tally = fill_entry(entry, stored, source, data, encoder)
            entry.complete(Summary(names, len(paths), tally.rows_used, tally.num_samples, tally.num_tokens))
        entry.mark_used()
        rows = CachedRows(paths, names, tally, entry.hold())
    removed = [] if stored.is_complete else cache.shrink(data.cache_max_gib * 2**30)
    if removed:
        logger.info(f"cache_max_gib: {len(removed):,} entries that were not used for longest left {cache.folder}")
    return rows, notices

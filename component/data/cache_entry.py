"""The prepared rows of one entry of a config on disk: chunks that are whole or absent, and a last file that completes.

Beside chunk-00000.arrow lies chunk-00000.json: the counts of its rows and the hash of the table. entry.json comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow

from component.data.chunks import Chunk, to_bytes
from component.data.rows import Failure, Source
from component.data.samples import Samples
from component.data.tally import Tally
from component.runtime.kept_entries import CACHE_TAG, Hold, mark_as_cache, naming_cache_errors

COMPLETE = "entry.json"
_THREADS = 2


@dataclass(frozen=True)
class StoredRows:
    """What of an entry is on disk and undamaged: its first chunks.

    Attributes:
        paths: of the tables.
        tally: the counts of their rows.
        is_complete: whether these are all.
        is_damaged: whether something was there that cannot be used.
    """

    paths: tuple[Path, ...]
    tally: Tally
    is_complete: bool
    is_damaged: bool


@dataclass(frozen=True)
class Summary:
    """What a complete entry says of itself.

    Attributes:
        files: the names of its data files when it was prepared.
    """

    files: tuple[str, ...]
    num_chunks: int
    num_rows: int
    num_samples: int
    num_tokens: int


class CacheEntry:
    """Writes and reads one entry. Whoever writes holds its lock.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> StoredRows:
        """Find the chunks that are there and undamaged; each is read once and compared with its hash."""
        summary = self.summary()
        paths = [self._table(number) for number in range(self._count())]
        with ThreadPoolExecutor(_THREADS) as pool:
            tallies = list(pool.map(_read_counts, paths))
        num_good = tallies.index(None) if None in tallies else len(tallies)
        tally = Tally()
        for part in tallies[:num_good]:
            assert part is not None
            tally.add(part)
        is_complete = summary is not None and summary.num_chunks == num_good
        is_damaged = num_good < len(tallies) or (not is_complete and (self.folder / COMPLETE).exists())
        return StoredRows(tuple(paths[:num_good]), tally, is_complete, is_damaged)

    def keep(self, num_chunks: int) -> None:
        """Remove all but the first chunks, and what a process left behind that was killed while it wrote.

        Folders and hidden files, such as network file systems put there, are none of it.
        """
        kept = {path for number in range(num_chunks) for path in (self._table(number), self._counts(number))}
        kept.add(self.folder / CACHE_TAG)
        with naming_cache_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            mark_as_cache(self.folder)
            for path in self.folder.iterdir():
                if path not in kept and not path.name.startswith(".") and not path.is_dir():
                    path.unlink()

    def write_chunk(self, number: int, table: pyarrow.RecordBatch, tally: Tally) -> Path:
        """Write a chunk with its counts; after a crash at any moment it is there or not, never a part of it."""
        content = to_bytes(table)
        facts = {**tally.to_dict(), "sha256": hashlib.sha256(content).hexdigest()}
        with naming_cache_errors(self.folder):
            _write(self._table(number), content)
            _write(self._counts(number), _seal(facts))
        return self._table(number)

    def complete(self, summary: Summary) -> None:
        """Say that all chunks are there."""
        with naming_cache_errors(self.folder):
            _write(self.folder / COMPLETE, _seal({**summary.__dict__, "files": list(summary.files)}))

    def summary(self) -> Summary | None:
        """What the entry says of itself; None where it is incomplete, damaged or of another version."""
        facts = _unseal(self.folder / COMPLETE)
        if facts is None or facts.keys() != {item.name for item in fields(Summary)}:
            return None
        return Summary(**{**facts, "files": tuple(facts["files"])})

    def mark_used(self) -> None:
        """Make it the most recently used entry."""
        with suppress(PermissionError):  # of another user, who lets others read it
            os.utime(self.folder / COMPLETE)

    def open(self) -> tuple[StoredRows, Hold] | None:
        """The rows of a complete entry, held so that no process removes them; None where somebody has to write."""
        try:
            hold = Hold(self.folder / COMPLETE)
        except OSError:
            return None
        stored = self.load()
        return (stored, hold) if stored.is_complete else None

    def hold(self) -> Hold:
        """Keep a complete entry from being removed by other processes, as long as what is returned lives."""
        with naming_cache_errors(self.folder):
            return Hold(self.folder / COMPLETE, wait=True)

    def _count(self) -> int:
        """How many chunks there are, by their names."""
        number = 0
        while self._counts(number).exists():
            number += 1
        return number

    def _table(self, number: int) -> Path:
        return self.folder / f"chunk-{number:05}.arrow"

    def _counts(self, number: int) -> Path:
        return self._table(number).with_suffix(".json")


@dataclass(frozen=True)
class CachedRows:
    """The rows of a complete entry.

    Attributes:
        paths: of the tables.
        file_names: what the data files are called today.
        tally: the counts of all rows.
        hold: keeps the files as long as this lives, or any of the samples; None without files.
    """

    paths: tuple[Path, ...]
    file_names: tuple[str, ...]
    tally: Tally
    hold: Hold | None

    @cached_property
    def samples(self) -> Samples:
        """All samples."""
        return Samples([Chunk(path, self.file_names, self.hold) for path in self.paths])

    def failures(self) -> Iterator[Failure]:
        """All rows that were dropped, read chunk by chunk."""
        for path in self.paths:
            facts = _unseal(path.with_suffix(".json"))
            for file, line, reason in facts["dropped"] if facts else ():
                yield Failure(Source(self.file_names[file], line), reason)


def _read_counts(table: Path) -> Tally | None:
    """The counts of a chunk; None where they or the table are damaged."""
    facts = _unseal(table.with_suffix(".json"))
    try:
        with open(table, "rb") as file:
            is_whole = facts is not None and hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]
    except OSError:
        return None
    return Tally.from_dict(facts) if facts is not None and is_whole else None


def _seal(facts: Mapping[str, Any]) -> bytes:
    """JSON text that shows when it was damaged."""
    content = json.dumps(facts)
    return json.dumps({"sha256": hashlib.sha256(content.encode()).hexdigest(), "content": content}).encode()


def _unseal(path: Path) -> dict[str, Any] | None:
    """The facts of a file of `_seal`; None where it is absent or damaged."""
    try:
        sealed = json.loads(path.read_bytes())
        content = sealed["content"]
        return json.loads(content) if hashlib.sha256(content.encode()).hexdigest() == sealed["sha256"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _write(path: Path, content: bytes | pyarrow.Buffer) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)

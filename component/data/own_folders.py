"""Folders that Lampyris itself writes, which hold no data where they lie below a data folder: caches and runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Marks a folder of the cache; also what backup programs leave out (https://bford.info/cachedir).
CACHE_TAG = "CACHEDIR.TAG"
_TAG_CONTENT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Rows that Lampyris has prepared; script/cache.py removes them.\n"
)
_RUN_FILE = "run.json"
_RUN_KEYS = {"schema_version", "status", "attempts"}


def mark_as_cache(folder: Path) -> None:
    """Say in a folder that it belongs to the cache.

    Raises:
        OSError: it cannot be written.
    """
    tag = folder / CACHE_TAG
    if not tag.exists():
        tag.write_bytes(_TAG_CONTENT)


def describe_own(folder: Path) -> str | None:
    """What a folder is that Lampyris wrote, in words; None for any other."""
    try:
        if os.path.isfile(folder / CACHE_TAG) and (folder / CACHE_TAG).read_bytes() == _TAG_CONTENT:
            return "prepared rows of a cache"
        if os.path.isfile(folder / _RUN_FILE):
            run = json.loads((folder / _RUN_FILE).read_bytes())
            return "the folder of a run" if isinstance(run, dict) and run.keys() >= _RUN_KEYS else None
    except (OSError, ValueError, RecursionError):
        return None
    return None


def outside_own(matches: Iterable[Path], base: Path, left_out: dict[str, list[Path]]) -> Iterator[Path]:
    """Those of a glob's matches that are not, and do not lie in, such a folder.

    Args:
        base: the folder that the pattern names; it is the user's choice, whatever it is.
        left_out: takes the folders that hold others, by what they are.
    """
    known: dict[Path, str | None] = {}
    for match in matches:
        places = [place for place in (*reversed(match.parents), match) if base in place.parents]
        for place in places:
            if place not in known:
                known[place] = describe_own(place)
                if (what := known[place]) is not None:
                    left_out.setdefault(what, []).append(place)
            if known[place] is not None:
                break
        else:
            yield match

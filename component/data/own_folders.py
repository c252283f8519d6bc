"""Folders that Lampyris itself writes, which hold no data where they lie below a data folder: caches and runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from component.runtime.kept_entries import CACHE_TAG, TAG_CONTENT

_RUN_FILE = "run.json"
_RUN_KEYS = {"schema_version", "status", "attempts"}


def describe_own(folder: Path) -> str | None:
    """What a folder is that Lampyris wrote, in words; None for any other."""
    try:
        if os.path.isfile(folder / CACHE_TAG) and (folder / CACHE_TAG).read_bytes() == TAG_CONTENT:
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

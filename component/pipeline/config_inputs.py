"""What a config reads from disk, so that no output takes its place."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from component.config.load import Config


def input_at(config: Config, path: Path) -> str | None:
    """What the config reads at `path`, in words; None if it reads nothing there.

    A file in a folder of data, or one that a pattern of the config matches, counts although it does not exist yet:
    the next run would read it as data.
    """
    place = path.resolve()
    if any(place == file.resolve() for file in _config_files(config)):
        return "the config"
    for key in ("template_name", "plugins", "train_file", "eval_file"):
        if any(_covers(entry, place) for entry in _texts(config.values.get(key))):
            return key
    for key in ("model_name_or_path", "tokenizer_name_or_path"):
        if place.exists() and any(_covers(entry, place) for entry in _texts(config.values.get(key))):
            return key
    return None


def _config_files(config: Config) -> Iterator[Path]:
    names = {config.path, *(place.source for place in config.places.values() if place.line)}
    yield from (Path(name) for name in names if name is not None)


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [text for text in value or () if isinstance(text, str)]


def _covers(entry: str, place: Path) -> bool:
    """Whether a file, folder or pattern holds a place."""
    named = Path(entry).expanduser().absolute()
    if named.exists():
        return place == named.resolve() or (named.is_dir() and named.resolve() in place.parents)
    if not glob.has_magic(entry):
        return False
    matches = (Path(match).resolve() for match in glob.iglob(str(named), recursive=True))
    return place.match(str(named)) or any(place == match or match in place.parents for match in matches)

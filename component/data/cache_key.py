"""What decides the rows of an entry of the config, as one hash: equal keys mean equal rows, token for token."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from component.config.schema import DataSection
from component.data.encoders.interface import RowEncoder
from component.data.formats.interface import each_format
from component.data.records import data_suffix
from component.data.sources import DataFile

#: Of the layout of the chunks and what is in them.
_VERSION = 2
_FOLDER = Path(__file__).resolve().parent
#: Modules of this folder that decide no token; a new one counts until it is named here.
_WITHOUT_TOKENS = (
    "bad_rows", "cache", "cache_entry", "collators", "counting", "dataset", "entries", "mixture",
    "order", "packing", "prepare", "progress", "report", "samples", "split", "threads",
)  # fmt: skip
_PACKAGES = ("transformers", "tokenizers", "jinja2", "pyarrow")


def cache_key(
    files: Sequence[DataFile], hashes: Sequence[str], limit: int | None, data: DataSection, encoder: RowEncoder
) -> str:
    """Return a SHA-256 (hex) of the content of files and all that is done to it.

    The names of files do not count, but for their suffix, which decides how they are read.

    Args:
        files: in order.
        hashes: of the content of each.
        limit: how many usable rows are read at most.
        data: the config's data section.
    """
    facts = {
        "version": _VERSION,
        "files": [
            [data_suffix(file.path), file.path.suffix.lower(), sha256]
            for file, sha256 in zip(files, hashes, strict=True)
        ],
        "limit": limit,
        "data_format": data.data_format,
        "columns": data.columns,
        "encoder": encoder.facts(),
        "keep_text": encoder.keep_text,
        "code": hash_code(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def hash_code() -> str:
    """Return a SHA-256 (hex) of the code that makes tokens of files: ours, the user's formats, versions of packages."""
    ignored = {_FOLDER / f"{name}.py" for name in _WITHOUT_TOKENS}
    paths = {path.resolve() for path in _FOLDER.rglob("*.py")} - ignored
    digest = hashlib.sha256()
    for _, component in each_format():
        try:
            paths.add(Path(inspect.getfile(type(component))).resolve())
        except (TypeError, OSError):  # typed into a prompt: its code cannot be seen, so nothing of it is used again
            digest.update(secrets.token_bytes())
    for path in sorted(paths):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr([importlib.metadata.version(name) for name in _PACKAGES]).encode())
    return digest.hexdigest()

"""JSON text that any reader accepts, and files that are whole or absent.

JSON has no word for NaN and infinities. They are written as the texts "NaN", "Infinity" and "-Infinity", so that a
diverged loss stays distinguishable from a missing one; `restore_numbers` turns them back.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from component.config.errors import MachineError

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json_text(value: Any, *, indent: int | None = None) -> str:
    """Write a value as strict JSON, mappings in their own order.

    Args:
        value: mappings, sequences, sets (sorted), dataclasses, paths, texts, numbers (numpy, torch scalars too), None.

    Raises:
        TypeError: a value of another type; that is a bug of the caller.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def restore_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn those values of a record that stand for NaN and infinities back into floats; nested values stay."""
    return {name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in record.items()}


@contextmanager
def naming_disk_errors(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a line for the user.

    Args:
        path: of what is written in the context.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space there" if is_full else "mend that"
        raise MachineError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}, or choose another folder"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content so that after a crash at any moment it is the old or the new one, never a part.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    with replacing(path) as file:
        file.write(to_bytes(content) if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into, which takes the place of `path` when the block ends, and goes if it is left early.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming_disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # it is still there only if something failed
        if os.name == "posix":  # make the rename itself durable
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def to_bytes(text: str) -> bytes:
    """UTF-8. A lone surrogate has no such form; it becomes the JSON escape \\udXXX."""
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _plain(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form")

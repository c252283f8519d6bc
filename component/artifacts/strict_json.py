"""JSON text that any reader accepts, and files that are whole or absent.

JSON has no word for NaN and infinities. They are written as the texts "NaN", "Infinity" and "-Infinity", so that a
diverged loss stays distinguishable from a missing one; `restore_numbers` turns them back.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content so that after a crash at any moment it is the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            # A lone surrogate has no UTF-8 form; backslashreplace makes it the JSON escape \udXXX.
            file.write(text.encode("utf-8", "backslashreplace"))
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

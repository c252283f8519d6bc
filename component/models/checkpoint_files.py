"""The weight files of a checkpoint, told apart without reading them whole.

Each counts by its name, size and time of change, the header of a safetensors file, and some blocks spread over it. That
sees every change that a program makes in the usual way, and every training, which moves all numbers. It does not see an
edit of a few numbers between the blocks by one who puts size and time back as they were.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.index.json")
_NUM_BLOCKS, _BLOCK_BYTES = 32, 2**14
#: A safetensors file begins with the length of its header; one that is longer than this is taken in part.
_LENGTH_BYTES, _MAX_HEADER_BYTES = 8, 2**26


def weight_files(folder: Path) -> list[Path]:
    """The files that hold weights, and the list of them."""
    return sorted({path for pattern in WEIGHTS for path in folder.glob(pattern) if path.is_file()})


def num_weight_bytes(folder: Path) -> int:
    """Bytes of the weights on disk."""
    return sum(path.stat().st_size for path in weight_files(folder))


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """What identifies weights and configuration in a folder, as JSON-ready values; see the module for what it misses.

    Raises:
        OSError: a file cannot be read.
    """
    files = {path.name: [*sample_file(path), path.stat().st_mtime_ns] for path in weight_files(folder)}
    configs = [path.read_bytes() for name in (CONFIG, GENERATION_CONFIG) if (path := folder / name).is_file()]
    return {"files": files, "configs": [hashlib.sha256(content).hexdigest() for content in configs]}


def sample_file(path: Path) -> tuple[int, str]:
    """Size of a file, and a SHA-256 (hex) of its beginning, its header and blocks spread over it to its end.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        digest.update(start)
        if path.suffix == ".safetensors":
            digest.update(file.read(min(int.from_bytes(start, "little"), _MAX_HEADER_BYTES)))
        last = max(size - _BLOCK_BYTES, 0)
        for number in range(_NUM_BLOCKS):
            file.seek(last * number // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return size, digest.hexdigest()

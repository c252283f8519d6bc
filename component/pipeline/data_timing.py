"""How long the preparation of conversations takes, as a whole and stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from component.config.schema import DataSection
from component.data.packing import pack
from component.data.prepare import prepare_data
from component.data.reading import read_rows
from component.data.render import Renderer
from component.data.rows import EncodedRow, Failure, Row
from component.data.sources import find_files
from component.models.tokenizer import read_tokenizer
from component.pipeline.rendering import build_rendering

_BATCH_SIZE = 1000


class PreparationTiming:
    """Prepares the rows of one file, with the template of a tokenizer.

    Args:
        rows: conversations in any format; every one must be usable.
        tokenizer: its folder or hub id.
        max_seq_length: of samples and packs, in tokens.
    """

    def __init__(self, rows: Path, tokenizer: str, *, max_seq_length: int) -> None:
        self._rows = rows
        self._max_seq_length = max_seq_length
        self._rendering = build_rendering(self._section(None), read_tokenizer(tokenizer), "messages")

    def time_all(self, cache_dir: Path) -> dict[str, float]:
        """Seconds of `prepare_data` with a cache in a new folder, of packing, and of both as "total"."""
        preparing, prepared = _timed(prepare_data, self._section(cache_dir), self._rendering.encoder)
        packing, _ = _timed(partial(pack, capacity=self._max_seq_length), prepared.train.lengths)
        return {"preparing": preparing, "packing": packing, "total": preparing + packing}

    def time_stages(self) -> dict[str, float]:
        """Seconds of what `prepare_data` does at the same time, one after the other.

        "rendering" has the proof of the masks in it, "encoding" the fitting into the length.
        """
        data = self._section(None)
        (file,) = find_files(data.train_file, key="train_file", row_kind="messages").files
        reading, rows = _timed(lambda: list(read_rows(file, data, "messages").rows))
        assert not any(isinstance(row, Failure) for row in rows)
        renderer, encoder = self._rendering.renderer, self._rendering.encoder
        assert renderer is not None
        rendering = both = 0.0
        for start in range(0, len(rows), _BATCH_SIZE):
            batch = rows[start : start + _BATCH_SIZE]
            rendering += _timed(_render, renderer, batch)[0]
            seconds, encoded = _timed(encoder.encode_rows, batch)
            assert all(isinstance(item, EncodedRow) for item in encoded)
            both += seconds
        return {"reading": reading, "rendering": rendering, "encoding": both - rendering}

    def _section(self, cache_dir: Path | None) -> DataSection:
        cache = {} if cache_dir is None else {"cache_dir": str(cache_dir)}
        return DataSection(train_file=[str(self._rows)], max_seq_length=self._max_seq_length, **cache)


def _render(renderer: Renderer, rows: Sequence[Row]) -> None:
    for row in rows:
        renderer.render(row.messages)


def _timed(action: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action(*arguments)
    return time.perf_counter() - began, result

"""Records of data files as they were written, and files that may be compressed."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from component.config.errors import DataError, MachineError
from component.data.rows import RowError, Source

#: A longer record is a broken file, or nothing that fits into memory as tokens.
MAX_RECORD_BYTES = 16 * 2**20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True)
class Record:
    """One record of a file, as it was written.

    Attributes:
        notices: what its file made of it, in words that are the same for every record like it.
    """

    source: Source
    value: Mapping[str, Any]
    notices: tuple[str, ...] = ()


def over_long(size: int, unit: str = "characters") -> RowError:
    """Why a record is not used that is nothing to hold in memory."""
    return RowError(f"over-long record: {size:,} {unit}, at most {MAX_RECORD_BYTES:,} are read")


def check_column_names(names: Sequence[str], place: str) -> None:
    """Check that each column of a table has a name of its own.

    Args:
        names: of all columns.
        place: where they stand, for the message.

    Raises:
        DataError: one has none, or that of another.
    """
    if len(set(names)) == len(names) and "" not in names:
        return
    repeated = {name for name in names if names.count(name) > 1} - {""}
    what = f"two columns are named {min(repeated)!r}" if repeated else "a column has no name"
    raise DataError(f"{place}: bad table: {what}; give each column a name of its own")


def data_suffix(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: `.jsonl` for `x.JSONL.gz`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix


def open_data(path: Path) -> BinaryIO:
    """Open a data file for reading, decompressed.

    Raises:
        MachineError: the package that decompresses it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")
    if suffix == ".zst":
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            raise MachineError(
                f"{path}: the package zstandard is not installed; pip install zstandard, or decompress the file"
            ) from None
        return io.BufferedReader(_ZstdFile(path, zstandard), 2**17)
    return open(path, "rb")


def read_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines with their size in bytes; of an over-long line only the beginning is given, so that any file fits."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        yield line, len(line) if len(line) <= MAX_RECORD_BYTES else len(line) + skip_line(file, line)


def skip_line(file: BinaryIO, start: bytes) -> int:
    """Go to the end of a line of which the start is read; returns how many bytes were left of it."""
    num_bytes, end = 0, start
    while not end.endswith(b"\n") and (end := file.readline(2**20)):
        num_bytes += len(end)
    return num_bytes


class _ZstdFile(io.RawIOBase):
    """A zstd file as a stream; the package's own reader takes a file that is cut short for one that ends there."""

    def __init__(self, path: Path, zstandard: Any) -> None:
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = self._decompressor.decompressobj()
        self._is_inside = False
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._ready = b""

    def readable(self) -> bool:
        """True, as `io.RawIOBase` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes; 0 at the end of the file."""
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            chunk = chunk or self._file.read(2**17)
            if not chunk:
                if self._is_inside:
                    raise EOFError("it ends inside a frame")
                return 0
            if self._frame.eof:  # several frames make one file
                self._frame = self._decompressor.decompressobj()
            self._ready = self._frame.decompress(chunk)
            self._is_inside = not self._frame.eof
        count = min(len(self._ready), len(buffer))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        """Close the file below as well."""
        self._file.close()
        super().close()


def decompression_errors() -> tuple[type[Exception], ...]:
    """What reading a compressed file raises where it is damaged or cut short."""
    zstandard = sys.modules.get("zstandard")
    return (gzip.BadGzipFile, EOFError, zlib.error, *((zstandard.ZstdError,) if zstandard else ()))

"""Data files: which ones an entry of the config names, what they contain, and their content hashes."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.data.json_records import RecordDecoder, read_json_line, scan_json
from component.data.rows import Failure, RowError, Source

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class Record:
    """One record of a file, as it was written."""

    source: Source
    value: Mapping[str, Any]


@dataclass(frozen=True)
class FileKind:
    """How files with a certain suffix are read, and for which kinds of row."""

    read: Callable[[Path], Iterator[Record | Failure]]
    row_kinds: tuple[str, ...]


@dataclass(frozen=True)
class DataFiles:
    """The files that the entries of a config name.

    Attributes:
        paths: in the order of the entries; within a folder or glob by name.
        notices: files that were left out, and why.
    """

    paths: tuple[Path, ...]
    notices: tuple[str, ...]


def find_files(entries: Sequence[str], *, key: str, row_kind: str) -> DataFiles:
    """Expand files, folders (recursively) and globs to files.

    Args:
        entries: the value of the config key.
        key: its name, for messages.
        row_kind: what the task trains on; a folder's files that cannot hold it are left out with a notice.

    Raises:
        UserError: an entry does not exist, matches nothing, or is of a kind that cannot be read.
    """
    paths: dict[str, Path] = {}
    skipped: list[Path] = []
    repeated: list[Path] = []
    for entry in entries:
        for path in _expand(entry, key, row_kind, skipped):
            kept = paths.setdefault(os.path.realpath(path), path)
            if kept is not path:
                repeated.append(path)
    notices = []
    if skipped:
        notices.append(f"{key}: left out {_few(skipped)}: only {_suffixes(row_kind)} are read for this task")
    if repeated:
        notices.append(f"{key}: {_few(repeated)} named more than once; read once")
    return DataFiles(tuple(paths.values()), tuple(notices))


def read_records(path: Path) -> Iterator[Record | Failure]:
    """Read a file's records in order; a record that cannot be read comes as a failure with its reason.

    Args:
        path: one of `find_files`.

    Raises:
        DataError: a JSON array is broken, so that the rows after that place cannot be told apart.
    """
    return FILE_KINDS[path.suffix.lower()].read(path)


def hash_files(paths: Sequence[Path], *, key: str) -> dict[str, str]:
    """Return the sha256 of each file's content, by path.

    Raises:
        UserError: a file cannot be read.
    """
    hashes = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                hashes[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{key}: {path} cannot be read ({error.strerror}); check its permissions") from None
    return hashes


def _expand(entry: str, key: str, row_kind: str, skipped: list[Path]) -> list[Path]:
    """Files of one entry; those of a folder or glob that cannot be read for this task go to `skipped`."""
    path = Path(entry).expanduser()
    if path.is_file():
        _check_suffix(path, key, row_kind)
        return [path]
    if path.is_dir():
        found = list(_walk(path, key))
    elif _GLOB_CHARACTERS & set(entry):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise UserError(f"{key}: {entry} matches no file (looked for {path.absolute()}); correct the pattern")
        found = [path for match in matches for path in (_walk(match, key) if match.is_dir() else (match,))]
    else:
        raise UserError(
            f"{key}: {entry} does not exist (looked for {path.absolute()}); "
            "correct the path, which is relative to the working directory"
        )
    usable = [path for path in found if _is_readable_kind(path, row_kind)]
    skipped.extend(path for path in found if not _is_readable_kind(path, row_kind))
    if not usable:
        raise UserError(
            f"{key}: {entry} holds no data file for this task (looked in {path.absolute()}); "
            f"put {_suffixes(row_kind)} files there or name another place"
        )
    return usable


def _walk(folder: Path, key: str) -> Iterator[Path]:
    """Files below a folder, sorted, without hidden ones; links are followed, but no folder is entered twice."""
    entered: set[str] = set()
    stop = _stop_unreadable(key)
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        place = os.path.realpath(parent)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _stop_unreadable(key: str) -> Callable[[OSError], None]:
    def stop(error: OSError) -> None:
        raise UserError(f"{key}: {error.filename} cannot be read ({error.strerror}); check its permissions")

    return stop


def _is_readable_kind(path: Path, row_kind: str) -> bool:
    kind = FILE_KINDS.get(path.suffix.lower())
    return kind is not None and row_kind in kind.row_kinds


def _check_suffix(path: Path, key: str, row_kind: str) -> None:
    """Refuse a file that is named in the config and cannot be read for this task."""
    if _is_readable_kind(path, row_kind):
        return
    if path.suffix.lower() in FILE_KINDS:
        raise UserError(
            f"{key}: {path} is plain text, which has no conversations; "
            f"give {_suffixes(row_kind)} files, or set task_type: pretrain"
        )
    raise UserError(f"{key}: {path} is of a kind that is not read; supported are {_suffixes(row_kind)}")


def _suffixes(row_kind: str) -> str:
    return ", ".join(suffix for suffix, kind in FILE_KINDS.items() if row_kind in kind.row_kinds)


def _few(paths: Sequence[Path]) -> str:
    """The first paths of a list, and how many there are more."""
    more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
    return ", ".join(str(path) for path in paths[:3]) + more


def _read_json_lines(path: Path) -> Iterator[Record | Failure]:
    """Read one object a line; blank lines are skipped and a byte-order mark is accepted."""
    decoder = RecordDecoder()
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.strip():
                continue
            source = Source(str(path), number)
            try:
                yield Record(source, read_json_line(line.decode("utf-8").rstrip("\r\n"), decoder))
            except UnicodeDecodeError as error:
                yield Failure(source, f"invalid UTF-8: byte {error.start + 1} of the line")
            except RowError as error:
                yield Failure(source, str(error))


def _read_json(path: Path) -> Iterator[Record | Failure]:
    """Read an array of objects, or what is really JSON Lines."""
    content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    if _is_json_lines(content):
        yield from _read_json_lines(path)
        return
    # Bytes that are not UTF-8 become lone surrogates, which spoils only the record that they are in.
    for line, value in scan_json(content.decode("utf-8", errors="surrogateescape"), str(path)):
        source = Source(str(path), line)
        yield Failure(source, str(value)) if isinstance(value, RowError) else Record(source, value)


def _is_json_lines(content: bytes) -> bool:
    """Whether one of the first two lines is an object of its own, which no line of an indented file can be."""
    start = content[:4096].lstrip()
    if not start.startswith(b"{"):
        return False
    lines = content.split(b"\n", 64)[:64]
    first_lines = [line for line in lines if line.strip()][:2]
    return any(_is_object(line) for line in first_lines)


def _is_object(line: bytes) -> bool:
    try:
        read_json_line(line.decode("utf-8", errors="surrogateescape"), RecordDecoder())
    except RowError as error:
        return line.lstrip().startswith(b"{") and not str(error).startswith("bad JSON")
    return True


def _read_document(path: Path) -> Iterator[Record | Failure]:
    """Read a text file as one document."""
    content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    try:
        yield Record(Source(str(path), 1), {"text": content.decode("utf-8")})
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Failure(Source(str(path), line), f"invalid UTF-8: byte {error.start + 1} of the file")


#: Suffix -> reader; another kind of file is one more line here.
FILE_KINDS: dict[str, FileKind] = {
    ".jsonl": FileKind(_read_json_lines, ("messages", "text")),
    ".json": FileKind(_read_json, ("messages", "text")),
    ".txt": FileKind(_read_document, ("text",)),
    ".md": FileKind(_read_document, ("text",)),
}

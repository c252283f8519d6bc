"""Data files: which ones an entry of the config names, what they contain, and their content hashes."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from component.config.errors import DataError, UserError
from component.data.documents import read_document
from component.data.json_files import read_json, read_json_lines
from component.data.records import Record, data_suffix, decompression_errors
from component.data.remote import download, fetch_hub_dataset, file_name_of, is_hub_dataset, is_url
from component.data.rows import Failure
from component.data.tables import read_arrow, read_csv, read_parquet, read_tsv

_GLOB_CHARACTERS = frozenset("*?[")
#: What the datasets library writes beside its arrow files: facts about them, no rows.
_ARROW_COMPANIONS = ("dataset_info.json", "state.json")


@dataclass(frozen=True)
class FileKind:
    """How files with a certain suffix are read: many records of any kind, or one document of plain text."""

    read: Callable[[Path, str], Iterator[Record | Failure]]
    is_document: bool = False


FileState = tuple[int, int, int]
"""What changes with the content of a file: its inode, size and time of modification."""


@dataclass(frozen=True)
class DataFile:
    """A file to read.

    Attributes:
        path: where it is.
        name: what reports call it: its path as the config names it, its web address, or its dataset.
        entry: index of the config's entry that it belongs to.
        state: what it was when it was found, so that a change is seen before its last record is used.
    """

    path: Path
    name: str
    entry: int = 0
    state: FileState | None = None


@dataclass(frozen=True)
class DataFiles:
    """The files that the entries of a config name.

    Attributes:
        files: in the order of the entries; within a folder or glob by name.
        notices: files that were left out, and why.
    """

    files: tuple[DataFile, ...]
    notices: tuple[str, ...]


def find_files(entries: Sequence[str], *, key: str, row_kind: str) -> DataFiles:
    """Expand files, folders (recursively), globs, web addresses and datasets of the hub to files.

    Args:
        entries: the value of the config key.
        key: its name, for messages.
        row_kind: what the task trains on; a folder's files that cannot hold it are left out with a notice.

    Raises:
        UserError: an entry does not exist, matches nothing, is of a kind that cannot be read or cannot be fetched.
    """
    files: dict[str, DataFile] = {}
    skipped: list[Path] = []
    repeated: list[Path] = []
    notices: list[str] = []
    for number, entry in enumerate(entries):
        for path, name in _resolve(entry, key, row_kind, skipped, notices):
            file = DataFile(path, name, number, _state(path))
            kept = files.setdefault(os.path.realpath(path), file)
            if kept is not file:
                repeated.append(path)
    if skipped:
        notices.append(f"{key}: left out {_few(skipped)}: only {_suffixes(row_kind)} are read for this task")
    if repeated:
        notices.append(f"{key}: {_few(repeated)} named more than once; read once")
    return DataFiles(tuple(files.values()), tuple(notices))


def read_records(file: DataFile) -> Iterator[Record | Failure]:
    """Read a file's records in order; a record that cannot be read comes as a failure with its reason.

    Args:
        file: one of `find_files`.

    Raises:
        DataError: the file is broken, so that the rows after some place cannot be told apart, or was changed meanwhile.
        MachineError: a package to read it is not installed.
    """
    path, name = file.path, file.name
    before = file.state or _state(path)
    try:
        yield from FILE_KINDS[data_suffix(path)].read(path, name)
    except decompression_errors() as error:
        what = " ".join(str(error).split())
        raise DataError(f"{name}: cannot be decompressed to its end ({what}); compress it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}); check it and its permissions") from None
    if _state(path) != before:
        raise DataError(f"{name}: changed while it was read; start again when nothing writes to it")


def _state(path: Path) -> FileState | None:
    """The state of a file; None if it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


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


def _resolve(
    entry: str, key: str, row_kind: str, skipped: list[Path], notices: list[str]
) -> Iterator[tuple[Path, str]]:
    """Files of one entry with their names."""
    if is_url(entry):
        _check_suffix(Path(file_name_of(entry)), key, row_kind)
        path, about = download(entry, key=key)
        notices.extend(about)
        yield path, entry
    elif is_hub_dataset(entry):
        paths = fetch_hub_dataset(entry, key=key)
        for number, path in enumerate(paths, start=1):
            yield path, entry if len(paths) == 1 else f"{entry}#{number}"
    else:
        for path in _expand(entry, key, row_kind, skipped):
            yield path, str(path)


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
        is_dataset = any(name.endswith(".arrow") for name in names)
        left_out = _ARROW_COMPANIONS if is_dataset else ()
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith(".") and name not in left_out)
        yield from (path for path in paths if path.is_file())


def _stop_unreadable(key: str) -> Callable[[OSError], None]:
    def stop(error: OSError) -> None:
        raise UserError(f"{key}: {error.filename} cannot be read ({error.strerror}); check its permissions")

    return stop


def _is_readable_kind(path: Path, row_kind: str) -> bool:
    kind = FILE_KINDS.get(data_suffix(path))
    return kind is not None and (row_kind == "text" or not kind.is_document)


def _check_suffix(path: Path, key: str, row_kind: str) -> None:
    """Refuse a file that is named in the config and cannot be read for this task."""
    if _is_readable_kind(path, row_kind):
        return
    if data_suffix(path) in FILE_KINDS:
        raise UserError(
            f"{key}: {path} is plain text, which has no conversations; "
            f"give {_suffixes(row_kind)} files, or set task_type: pretrain"
        )
    raise UserError(f"{key}: {path} is of a kind that is not read; supported are {_suffixes(row_kind)}")


def _suffixes(row_kind: str) -> str:
    """The kinds of file that are read for a kind of row, in words."""
    of_records = ", ".join(suffix for suffix, kind in FILE_KINDS.items() if not kind.is_document)
    return f"{of_records}, .txt, .md and source code" if row_kind == "text" else of_records


def _few(paths: Sequence[Path]) -> str:
    """The first paths of a list, and how many there are more."""
    more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
    return ", ".join(str(path) for path in paths[:3]) + more


_DOCUMENT_SUFFIXES = (
    ".txt", ".md", ".rst", ".tex", ".html", ".css",
    ".bash", ".c", ".cc", ".cpp", ".cs", ".cu", ".dart", ".ex", ".f90", ".go", ".h", ".hpp", ".hs", ".java", ".jl",
    ".js", ".jsx", ".kt", ".lua", ".m", ".ml", ".php", ".pl", ".proto", ".ps1", ".py", ".r", ".rb", ".rs", ".scala",
    ".sh", ".sql", ".swift", ".ts", ".tsx", ".vue", ".zig",
)  # fmt: skip

#: Suffix -> reader; another kind of file is one more line here. Each may be compressed (.gz, .zst).
FILE_KINDS: dict[str, FileKind] = {
    ".jsonl": FileKind(read_json_lines),
    ".json": FileKind(read_json),
    ".csv": FileKind(read_csv),
    ".tsv": FileKind(read_tsv),
    ".parquet": FileKind(read_parquet),
    ".arrow": FileKind(read_arrow),
    **dict.fromkeys(_DOCUMENT_SUFFIXES, FileKind(read_document, is_document=True)),
}

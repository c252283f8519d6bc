"""Data files: which ones an entry of the config names, what they contain, and their content hashes."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from component.config.errors import DataError, UserError
from component.data.contents import check_contents
from component.data.file_kinds import FILE_KINDS, check_kind, describe_kinds, is_readable_kind
from component.data.own_folders import describe_own, outside_own
from component.data.records import Record, data_suffix, decompression_errors
from component.data.remote import download, fetch_hub_dataset, file_name_of, is_hub_dataset, is_url
from component.data.rows import Failure

_GLOB_CHARACTERS = frozenset("*?[")
#: What the datasets library writes beside its arrow files: facts about them, no rows.
_ARROW_COMPANIONS = ("dataset_info.json", "state.json")
#: Categories of characters that no name shows: controls, halves of pairs (bytes that are not UTF-8), line ends.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
_ODD_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    0: "a link to nothing",
}

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


@dataclass
class _LeftOut:
    """Files and folders, in folders and globs, that are not read, for the notices."""

    of_other_kinds: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    odd: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, list[Path]] = field(default_factory=dict)

    def notices(self, key: str, row_kind: str) -> Iterator[str]:
        """One notice a reason."""
        if self.of_other_kinds:
            kinds = describe_kinds(row_kind)
            yield f"{key}: left out {_few(self.of_other_kinds)}: only {kinds} are read for this task"
        of_own = {what: list(dict.fromkeys(map(_name, places))) for what, places in self.own.items()}
        for what, names in (self.odd | of_own).items():
            yield f"{key}: left out {_few(names)}: {what}"
        if self.repeated:
            yield f"{key}: {_few(self.repeated)} named more than once; read once"


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
    left_out = _LeftOut()
    notices: list[str] = []
    for number, entry in enumerate(entries):
        for path, name in _resolve(entry, key, row_kind, left_out, notices):
            file = DataFile(path, name, number, _state(path))
            kept = files.setdefault(os.path.realpath(path), file)
            if kept is not file:
                left_out.repeated.append(name)
    return DataFiles(tuple(files.values()), (*notices, *left_out.notices(key, row_kind)))


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
        check_contents(path, name)
        yield from FILE_KINDS[data_suffix(path)].read(path, name)
    except decompression_errors() as error:
        what = " ".join(str(error).split())
        raise DataError(f"{name}: cannot be decompressed to its end ({what}); compress it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}); check it and its permissions") from None
    check_unchanged(replace(file, state=before))


def check_unchanged(file: DataFile) -> None:
    """Check that a file is what it was when it was found.

    Raises:
        DataError: it was written to or replaced.
    """
    if _state(file.path) != file.state:
        raise DataError(f"{file.name}: changed while it was read; start again when nothing writes to it")


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
            raise _unreadable(path, error, key) from None
    return hashes


def _resolve(entry: str, key: str, row_kind: str, left_out: _LeftOut, notices: list[str]) -> Iterator[tuple[Path, str]]:
    """Files of one entry with their names."""
    if is_url(entry):
        check_kind(Path(file_name_of(entry)), file_name_of(entry), key=key, row_kind=row_kind)
        path, about = download(entry, key=key)
        notices.extend(about)
        yield path, entry
    elif is_hub_dataset(entry):
        paths = fetch_hub_dataset(entry, key=key)
        for number, path in enumerate(paths, start=1):
            yield path, entry if len(paths) == 1 else f"{entry}#{number}"
    else:
        for path in _expand(entry, key, row_kind, left_out):
            yield path, _name(path)


def _expand(entry: str, key: str, row_kind: str, left_out: _LeftOut) -> list[Path]:
    """Files of one entry; those of a folder or glob that cannot be read for this task go to `left_out`."""
    path, name = Path(entry).expanduser(), _name(entry)
    mode = _mode(path, key)
    if mode and not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            what = _ODD_FILES.get(stat.S_IFMT(mode), "no file")
            raise UserError(f"{key}: {name} is {what}, which cannot be read twice; write its content to a file")
        check_kind(path, name, key=key, row_kind=row_kind)
        return [path]
    if mode:
        found: Iterable[Path] = _walk(path, key, left_out)
    elif _GLOB_CHARACTERS & set(entry):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise UserError(f"{key}: {name} matches no file (looked for {_name(path.absolute())}); correct the pattern")
        places = outside_own(matches, _base(path), left_out.own)
        found = (path for place in places for path in (_walk(place, key, left_out) if place.is_dir() else (place,)))
    else:
        raise UserError(
            f"{key}: {name} does not exist (looked for {_name(path.absolute())}); "
            "correct the path, which is relative to the working directory"
        )
    usable = [path for path in found if _is_usable(path, key, row_kind, left_out)]
    if not usable:
        raise UserError(
            f"{key}: {name} holds no data file for this task (looked in {_name(path.absolute())}); "
            f"put {describe_kinds(row_kind)} files there or name another place"
        )
    return usable


def _is_usable(path: Path, key: str, row_kind: str, left_out: _LeftOut) -> bool:
    """Whether a file of a folder or glob can be read for this task; if not, it is noted."""
    if not is_readable_kind(path, row_kind):
        left_out.of_other_kinds.append(_name(path))
        return False
    mode = stat.S_IFMT(_mode(path, key) or 0)
    if mode != stat.S_IFREG:
        left_out.odd.setdefault(_ODD_FILES.get(mode, "no file"), []).append(_name(path))
    return mode == stat.S_IFREG


def _mode(path: Path, key: str) -> int | None:
    """What kind of file a path is, after links; None if there is none.

    Raises:
        UserError: it cannot be seen.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise _unreadable(path, error, key) from None


def _base(pattern: Path) -> Path:
    """The folder that a glob names before its first part with a pattern."""
    return next(place for place in pattern.parents if not _GLOB_CHARACTERS & set(str(place)))


def _walk(folder: Path, key: str, left_out: _LeftOut) -> Iterator[Path]:
    """What lies below a folder, sorted, without hidden files; links are followed, but no folder is entered twice.

    Caches and runs below it are no data; the folder itself is the user's choice.
    """
    entered: set[str] = set()

    def stop(error: OSError) -> None:
        """Refuse a folder that cannot be listed, which `os.walk` would pass over."""
        raise _unreadable(error.filename, error, key)

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        place = os.path.realpath(parent)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        if (what := describe_own(Path(parent)) if Path(parent) != folder else None) is not None:
            left_out.own.setdefault(what, []).append(Path(parent))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        is_dataset = any(name.endswith(".arrow") for name in names)
        companions = _ARROW_COMPANIONS if is_dataset else ()
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith(".") and name not in companions)


def _unreadable(path: Path | str, error: OSError, key: str) -> UserError:
    return UserError(f"{key}: {_name(path)} cannot be read ({error.strerror}); check its permissions")


def _name(path: Path | str) -> str:
    """A path as one line of text: what cannot be printed, such as a line end, is written as its escape."""
    return "".join(
        character.encode("unicode_escape").decode("ascii") if unicodedata.category(character) in _ESCAPED else character
        for character in str(path)
    )


def _few(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

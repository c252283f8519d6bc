"""Kinds of data files by their suffix: how each is read, and which are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from component.config.errors import UserError
from component.data.delimited import read_csv, read_tsv
from component.data.documents import read_document
from component.data.json_files import read_json, read_json_lines
from component.data.records import COMPRESSIONS, Record, data_suffix
from component.data.rows import Failure
from component.data.tables import read_arrow, read_parquet


@dataclass(frozen=True)
class FileKind:
    """How files with a certain suffix are read: many records of any kind, or one document of plain text."""

    read: Callable[[Path, str], Iterator[Record | Failure]]
    is_document: bool = False


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

_UNPACK = "is an archive; unpack it and name its folder"
_DECOMPRESS = f"is compressed in a way that is not read ({' and '.join(COMPRESSIONS)} are); decompress it"
_SAVE_AS_TABLE = "is a spreadsheet; save it as .csv"

#: Suffixes of files that are not read -> what they are, and what to do.
_NOT_READ: dict[str, str] = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tzst", ".tbz2", ".txz", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".bz2", ".xz", ".lz4", ".br", ".lzma", ".z"), _DECOMPRESS),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), _SAVE_AS_TABLE),
}


def is_readable_kind(path: Path, row_kind: str) -> bool:
    """Whether files of that name can hold a kind of rows."""
    kind = FILE_KINDS.get(data_suffix(path))
    return kind is not None and (row_kind == "text" or not kind.is_document)


def check_kind(path: Path, name: str, *, key: str, row_kind: str) -> None:
    """Refuse a file that is named in the config and cannot be read for this task.

    Args:
        path: the file.
        name: what the message calls it.
        key: the config key, for the message.
        row_kind: what the task trains on.

    Raises:
        UserError: it cannot; the message says what to do.
    """
    if is_readable_kind(path, row_kind):
        return
    if data_suffix(path) in FILE_KINDS:
        raise UserError(
            f"{key}: {name} is plain text, which has no conversations; "
            f"give {describe_kinds(row_kind)} files, or set task_type: pretrain"
        )
    what = next((_NOT_READ[suffix] for suffix in map(str.lower, path.suffixes) if suffix in _NOT_READ), None)
    if what is not None:
        raise UserError(f"{key}: {name} {what}")
    raise UserError(f"{key}: {name} is of a kind that is not read; supported are {describe_kinds(row_kind)}")


def describe_kinds(row_kind: str) -> str:
    """The kinds of file that are read for a kind of row, in words."""
    of_records = ", ".join(suffix for suffix, kind in FILE_KINDS.items() if not kind.is_document)
    return f"{of_records}, .txt, .md and source code" if row_kind == "text" else of_records

"""Files that an option of a command names for its output: looked at before the work that fills them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from component.config.errors import UserError


def check_output_file(option: str, path: Path) -> None:
    """Find out what would keep a file from being written.

    Args:
        option: that names it, for messages.

    Raises:
        UserError: the folder does not exist or cannot be written, or the path is something else than a regular file.
    """
    try:
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
        parent, has_parent = path.parent.resolve(), path.parent.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{option}: not a path ({reason}); name a file") from None
    if is_folder:
        raise UserError(f"{option} {path}: a folder; name a file in it")
    if is_other:
        raise UserError(f"{option} {path}: not a regular file; name another")
    if not has_parent:
        what = "is no folder; name another" if parent.exists() else "does not exist; make that folder or name another"
        raise UserError(f"{option} {path}: {parent} {what}")
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        reason = f"{parent} cannot be written ({error.strerror})"
        raise UserError(f"{option} {path}: {reason}; name another folder") from None

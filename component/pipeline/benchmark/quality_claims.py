"""Which process of suite `quality` has taken which case, so that no two measure one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from component.artifacts.strict_json import to_json_text, write_atomically
from component.config.errors import UserError
from component.pipeline.benchmark.child import INTERVAL, PATIENCE
from component.pipeline.benchmark.locked_file import locked
from component.pipeline.benchmark.quality_cases import Case
from component.runtime.kept_entries import Hold

#: In the scratch folder. The processes of a command share the lock.
CLAIMS, WORKERS = "claims.json", "workers.lock"
#: Takes a case for the command itself, which has no process to blame for a failure.
NO_WORKER = -1


def forget_claims(folder: Path, *, patience: float = PATIENCE) -> None:
    """Forget what an earlier command had claimed, for the one that has the lock of the scratch folder.

    Args:
        patience: seconds for the processes of a killed command to end, which they do at once on Linux, elsewhere after
            the run that they are at.

    Raises:
        UserError: they still work there.
    """
    (folder / WORKERS).touch()
    try:
        _wait_for_workers(folder, time.monotonic() + patience)
    except BlockingIOError:
        raise UserError(
            f"--scratch: {folder} is in use by the last run of a command that was killed; wait for it, or name another "
            "--scratch and --output"
        ) from None
    (folder / CLAIMS).unlink(missing_ok=True)


def _wait_for_workers(folder: Path, deadline: float) -> None:
    while True:
        try:
            Hold(folder / WORKERS, alone=True)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(INTERVAL)


def join_scratch(folder: Path) -> Hold:
    """The lock of a process that measures, to be kept while it does."""
    (folder / WORKERS).touch()
    return Hold(folder / WORKERS, wait=True)


def claim_first(folder: Path, cases: Sequence[Case], worker: int) -> Case | None:
    """Claim the first case that nobody has claimed; None where there is none.

    A claim is kept until the command ends, as a case is measured once, so results may be read before it.

    Args:
        folder: the scratch folder.
    """
    with locked(folder / CLAIMS):
        claims = _read(folder)
        free = next((case for case in cases if _key(case) not in claims), None)
        if free is not None:
            write_atomically(folder / CLAIMS, to_json_text({**claims, _key(free): worker}, indent=1) + "\n")
    return free


def claimed_by(folder: Path, cases: Sequence[Case], worker: int) -> Case | None:
    """The first of the cases that a process has claimed."""
    with locked(folder / CLAIMS):
        claims = _read(folder)
    return next((case for case in cases if claims.get(_key(case)) == worker), None)


def _read(folder: Path) -> dict[str, int]:
    return json.loads((folder / CLAIMS).read_text(encoding="utf-8")) if (folder / CLAIMS).is_file() else {}


def _key(case: Case) -> str:
    return f"{case.kind} {case.folder}"  # answers have the folder of the run that is asked

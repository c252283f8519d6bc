"""run.json: what a run was made from, how it went, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from loguru import logger

from component.artifacts.strict_json import naming_disk_errors, restore_numbers, to_json_text, write_atomically
from component.config.errors import MachineError, UserError

FILE_NAME = "run.json"
SCHEMA_VERSION = 1

Status = Literal["created", "running", "finished", "failed", "interrupted", "stopped"]

#: The parts that a caller sets, in the order of the file, with their values before anything is known.
SECTIONS: dict[str, Any] = {
    "notices": [],  # what was changed or ignored, one line each
    "hints": [],  # choices that work and are seldom meant, one line each
    "config": {},  # the merged config as written: interpolations of environment variables are not resolved
    "config_sources": {},  # key -> where its value was written, as text
    "loader": {},  # asked, got, reason
    "seeds": {},
    "hashes": {},  # of config, data, tokenizer and template
    "data": {},  # the data report
    "environment": {},
    "auto": {},  # what was left to the card: asked, chosen, predicted, and the alternatives
    "plan": {},  # predicted, and measured beside it at the end of a run on a GPU
    "timings": {},  # seconds by phase
    "metrics": {},  # the final ones
    "why_not_faster": [],  # at most three lines, each with an override to try
}


class Manifest:
    """The content of a run.json and its file; every change is on disk, whole, before the method returns.

    One process writes it (rank 0). The file's keys are `schema_version`, `status`, `created`, `updated`, the `SECTIONS`
    and `attempts`: a list with started, ended, from_step, to_step, status, exit_code, message, resumed_from and
    notices. Times are UTC, ISO 8601.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self._content = content

    @classmethod
    def create(cls, folder: Path, content: Mapping[str, Any]) -> Manifest:
        """Write the first run.json of a new run, status "created"; makes the folder.

        Args:
            content: values for `SECTIONS`; those left out stay empty.
        """
        with naming_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        head = {"schema_version": SCHEMA_VERSION, "status": "created", "created": utc_now(), "updated": utc_now()}
        manifest = cls(folder, {**head, **json.loads(to_json_text(SECTIONS)), "attempts": []})
        manifest.update(**content)
        return manifest

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether the folder holds a run.json, readable or not."""
        return (folder / FILE_NAME).is_file()

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the run.json of a folder.

        Raises:
            UserError: there is none, it is damaged or no run.json, or a newer version of the program wrote it.
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: not found; name the output_dir of a run") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read ({error}); restore it or use a new output_dir") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int) or not isinstance(content.get("attempts"), list):
            raise UserError(f"{path}: not the manifest of a run; use another output_dir")
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version: {version} is newer than {SCHEMA_VERSION}, the last one known; update Lampyris"
            )
        missing = {name: value for name, value in json.loads(to_json_text(SECTIONS)).items() if name not in content}
        content = {**content, **missing}
        if damage := _find_damage(content):
            raise UserError(f"{path}: damaged: {damage}; restore it or use a new output_dir")
        return cls(folder, content)

    @property
    def content(self) -> dict[str, Any]:
        """A copy of everything, NaN and infinities of the metrics as floats."""
        copy = json.loads(to_json_text(self._content))
        return {**copy, "metrics": restore_numbers(copy["metrics"])}

    @property
    def status(self) -> Status:
        """How far the run is."""
        return self._content["status"]

    def update(self, **sections: Any) -> None:
        """Replace whole sections.

        Args:
            sections: values for names of `SECTIONS`.
        """
        unknown = sections.keys() - SECTIONS.keys()
        assert not unknown, f"no section of run.json: {sorted(unknown)}"
        self._content.update(sections)
        self._write()

    def begin_attempt(
        self, *, from_step: int, resumed_from: Path | str | None = None, notices: Sequence[str] = ()
    ) -> None:
        """Record that training starts; the status becomes "running".

        An attempt that is still open was killed without a chance to say so; it is closed as "interrupted".

        Args:
            from_step: optimizer steps done before this attempt.
            resumed_from: the checkpoint it goes on from.
            notices: what is otherwise than in the attempt before, one line each.
        """
        for earlier in self._content["attempts"]:
            if earlier["status"] == "running":
                earlier.update(status="interrupted", message="the process ended without a word, at an unknown time")
        self._content["attempts"].append(
            {
                "started": utc_now(),
                "ended": None,
                "from_step": from_step,
                "to_step": None,
                "status": "running",
                "exit_code": None,
                "message": "",
                "resumed_from": resumed_from,
                "notices": list(notices),
            }
        )
        self._content["status"] = "running"
        self._write()

    def end_attempt(self, status: Status, *, to_step: int | None, exit_code: int, message: str = "") -> None:
        """Record how the attempt ended; the run gets the same status.

        Args:
            to_step: optimizer steps done in all; None when training was not reached.
            exit_code: of the process.
            message: why, for anything but "finished".

        Raises:
            MachineError: run.json of a finished run cannot be written. That of any other is only warned of: the reason
                for which the run ends counts more.
        """
        assert self._content["attempts"], "begin_attempt comes first"
        self._content["attempts"][-1].update(
            ended=utc_now(), to_step=to_step, status=status, exit_code=exit_code, message=message
        )
        self._content["status"] = status
        try:
            self._write()
        except MachineError as error:
            if status == "finished":
                raise
            logger.warning(f"{error}; it still says that the run goes on")

    def _write(self) -> None:
        self._content["updated"] = utc_now()
        self._content = json.loads(to_json_text(self._content))
        write_atomically(self.folder / FILE_NAME, to_json_text(self._content, indent=2) + "\n")


def _find_damage(content: Mapping[str, Any]) -> str | None:
    """The first thing that no manifest has, None where there is none."""
    if content.get("status") not in get_args(Status):
        return f"status is {json.dumps(content.get('status'))}"
    for name, empty in SECTIONS.items():
        if not isinstance(content[name], type(empty)):
            return f"{name} is no {'list' if isinstance(empty, list) else 'mapping'}"
    for number, attempt in enumerate(content["attempts"], 1):
        if not isinstance(attempt, dict) or attempt.get("status") not in get_args(Status):
            return f"attempt {number} of attempts has no status"
    if content["status"] == "finished" and not (
        content["attempts"] and isinstance(content["attempts"][-1].get("to_step"), int)
    ):
        return "status is finished, and the last attempt has no to_step"
    return None


def utc_now() -> str:
    """The time in UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""Reads the JSON files of results; what is damaged or of something else is an error with the file, place and fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from component.config.errors import UserError

MEND = "mend or move the file, or name another --output"
#: Field -> its type, or types.
Fields = Mapping[str, type | tuple[type, ...]]
#: Gives the fields of a run that ended well, by the entry of its case.
FieldsOf = Callable[[Mapping[str, Any]], Fields]

TOP: Fields = {"surroundings": dict, "cases": list}
ENTRY: Fields = {"name": str, "settings": dict, "runs": list}
RUN: Fields = {"status": str, "surroundings": str, "date": str}
FACTS: Fields = {"gpus": list, "git": dict, "packages": dict, "cpu": str, "python": str}
GPU: Fields = {"name": str, "memory": str, "driver": str}
GIT: Fields = {"commit": (str, type(None))}


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a file of results.

    Raises:
        UserError: it cannot be read, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {MEND}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object, so it is not the results of a suite; {MEND}")
    return content


def check_suite(path: Path, content: Mapping[str, Any], suite: str, schema_version: int) -> None:
    """Hold a file against the suite that is to go on with it.

    Raises:
        UserError: it is of another suite, or of no suite.
    """
    if content.get("schema_version") != schema_version or not {"suite", "cases"} <= content.keys():
        raise UserError(f"{path}: not the results of a suite; move it, or name another --output")
    found = content["suite"]
    if found != suite:
        raise UserError(f"{path}: results of suite {found}, not of {suite}; move it, or name another --output")


def check_runs(path: Path, content: Mapping[str, Any], statuses: Sequence[str], fields_of: FieldsOf) -> None:
    """Check that every case and run has what tables are made of.

    Args:
        statuses: that a run may have; the first one is that of a run that ended well.

    Raises:
        UserError: one lacks something; the place is in the message.
    """
    check_fields(path, "", content, TOP)
    for name, facts in content["surroundings"].items():
        place = f"surroundings.{name}"
        check_fields(path, place, facts, FACTS)
        check_fields(path, f"{place}.git", facts["git"], GIT)
        for number, gpu in enumerate(facts["gpus"]):
            check_fields(path, f"{place}.gpus[{number}]", gpu, GPU)
    for number, entry in enumerate(content["cases"]):
        check_fields(path, f"cases[{number}]", entry, ENTRY)
        for run_number, run in enumerate(entry["runs"]):
            place = f"cases[{number}].runs[{run_number}]"
            check_fields(path, place, run, RUN)
            if run["status"] not in statuses:
                raise UserError(f"{path}: {place}.status is {run['status']!r}, none of {', '.join(statuses)}; {MEND}")
            if run["surroundings"] not in content["surroundings"]:
                raise UserError(f"{path}: {place}.surroundings names none of the file's surroundings; {MEND}")
            if run["status"] == statuses[0]:
                check_fields(path, place, run, fields_of(entry))


def check_fields(path: Path, place: str, content: Any, fields: Fields) -> None:
    """Check a part of a file.

    Args:
        place: of the part in the file, for the message; empty at its top.

    Raises:
        UserError: it is no JSON object, lacks a field, or one is of another type.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: {place} is no JSON object; {MEND}")
    for name, types in fields.items():
        where = f"{place}.{name}" if place else name
        if name not in content:
            raise UserError(f"{path}: {where} is missing; {MEND}")
        if not isinstance(content[name], types):
            raise UserError(f"{path}: {where} is of the wrong type, {type(content[name]).__name__}; {MEND}")

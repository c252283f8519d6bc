"""Reads the JSON files of results; what is damaged or of something else is an error with the file, place and fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.config.errors import UserError

#: What a part must be: of a type or one of several, an object with these fields, or what a function finds no fault
#: with; its text follows the place of the part, as in ".kind is missing".
Rule = type | tuple[type, ...] | Mapping[str, Any] | Callable[[Any], str | None]
#: Field -> its rule.
Fields = Mapping[str, Rule]
#: Gives the fields of a run that ended well, by the entry of its case.
FieldsOf = Callable[[Mapping[str, Any]], Fields]

TOP: Fields = {"surroundings": dict, "cases": list}
ENTRY: Fields = {"name": str, "settings": dict, "runs": list}
RUN: Fields = {"status": str, "surroundings": str, "date": str}
GIT: Fields = {"commit": (str, type(None))}
FACTS: Fields = {"gpus": list, "git": GIT, "packages": dict, "cpu": str, "python": str}
GPU: Fields = {"name": str, "memory": str, "driver": str}


@dataclass(frozen=True)
class RunFields:
    """The fields of runs, beside RUN.

    Attributes:
        statuses: that a run may have; the first one is that of a run that ended well.
        fields_of: of a run that ended well.
        of_failed: of any other.
    """

    statuses: Sequence[str]
    fields_of: FieldsOf
    of_failed: Fields


@dataclass(frozen=True)
class ResultsFile:
    """A file of results, which exists.

    Attributes:
        option: that names another one, for messages.
    """

    path: Path
    option: str = "--output"

    def read_json_object(self) -> dict[str, Any]:
        """Its content.

        Raises:
            UserError: it cannot be read, or holds no JSON object.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.damage(f"cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise self.damage("holds no JSON object, so it is not the results of a suite")
        return content

    def check_suite(self, content: Mapping[str, Any], suite: str, schema_version: int) -> None:
        """Hold it against the suite that is to go on with it.

        Raises:
            UserError: it is of another suite, or of no suite.
        """
        if content.get("schema_version") != schema_version or not {"suite", "cases"} <= content.keys():
            raise UserError(f"{self.path}: not the results of a suite; move it, or name another {self.option}")
        found = content["suite"]
        if found != suite:
            fix = f"move it, or name another {self.option}"
            raise UserError(f"{self.path}: results of suite {found}, not of {suite}; {fix}")

    def check_runs(self, content: Mapping[str, Any], fields: RunFields) -> None:
        """Check that every case and run has what tables are made of.

        Raises:
            UserError: one lacks something; the place is in the message.
        """
        self._check("", content, TOP)
        for name, facts in content["surroundings"].items():
            self._check(f"surroundings.{name}", facts, FACTS)
            for number, gpu in enumerate(facts["gpus"]):
                self._check(f"surroundings.{name}.gpus[{number}]", gpu, GPU)
        for number, entry in enumerate(content["cases"]):
            self._check(f"cases[{number}]", entry, ENTRY)
            for run_number, run in enumerate(entry["runs"]):
                place = f"cases[{number}].runs[{run_number}]"
                self._check(place, run, RUN)
                if run["status"] not in fields.statuses:
                    raise self.damage(f"{place}.status is {run['status']!r}, none of {', '.join(fields.statuses)}")
                if run["surroundings"] not in content["surroundings"]:
                    raise self.damage(f"{place}.surroundings names none of the file's surroundings")
                has_ended_well = run["status"] == fields.statuses[0]
                self._check(place, run, fields.fields_of(entry) if has_ended_well else fields.of_failed)

    def damage(self, problem: str) -> UserError:
        """The error of a file that is damaged.

        Args:
            problem: with its place in the file.
        """
        return UserError(f"{self.path}: {problem}; mend or move the file, or name another {self.option}")

    def _check(self, place: str, part: Any, rule: Rule) -> None:
        problem = find_problem(part, rule)
        if problem is not None:
            raise self.damage(f"{place}{problem}".lstrip("."))


def find_problem(part: Any, rule: Rule) -> str | None:
    """What is wrong with a part of a file, to follow its place; None where nothing is."""
    if isinstance(rule, type | tuple):
        return None if isinstance(part, rule) else f" is of the wrong type, {type(part).__name__}"
    if not isinstance(rule, Mapping):
        return rule(part)
    if not isinstance(part, dict):
        return " is no JSON object"
    for name, inner in rule.items():
        if name not in part:
            return f".{name} is missing"
        if problem := find_problem(part[name], inner):
            return f".{name}{problem}"
    return None


def list_of(rule: Rule, *, least: int = 0) -> Callable[[Any], str | None]:
    """The rule of a list whose items have one rule.

    Args:
        least: number of items.
    """

    def find(part: Any) -> str | None:
        """What is wrong."""
        if problem := find_problem(part, list):
            return problem
        if len(part) < least:
            return f" has {len(part)} items, and needs {least}"
        found = ((number, find_problem(item, rule)) for number, item in enumerate(part))
        return next((f"[{number}]{problem}" for number, problem in found if problem), None)

    return find

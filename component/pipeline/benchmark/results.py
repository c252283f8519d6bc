"""The JSON file of a suite: every run of every case, added as it comes, so that a command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from component.artifacts.strict_json import to_json_text, write_atomically
from component.pipeline.benchmark.case import Case
from component.pipeline.benchmark.child import Ended
from component.pipeline.benchmark.locked_file import locked
from component.pipeline.benchmark.results_file import Fields, FieldsOf, ResultsFile, RunFields

DONE, OUT_OF_MEMORY, FAILED = "done", "out of memory", "failed"
SCHEMA_VERSION = 1


class Results:
    """Runs on disk. Several processes may add to one file: each change is made to what is there by then.

    Args:
        path: of the file, which may not exist yet.
        suite: whose results they are; by default the file has its name.
        fields_of: gives the fields that a run which ended well has for sure, by the entry of its case.
        of_failed: fields of a run that did not.
        option: that names another file, for messages.

    Raises:
        UserError: it exists and holds something else, or is damaged.
    """

    def __init__(
        self,
        path: Path,
        suite: str | None = None,
        fields_of: FieldsOf = lambda _entry: {},
        *,
        of_failed: Fields = MappingProxyType({}),
        option: str = "--output",
    ) -> None:
        self.path, self.suite, self.file = path, suite or path.stem, ResultsFile(path, option)
        self._fields = RunFields((DONE, OUT_OF_MEMORY, FAILED), fields_of, of_failed)
        self.content: dict[str, Any] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file anew, as after another process has added to it."""
        self.content = {"schema_version": SCHEMA_VERSION, "suite": self.suite, "surroundings": {}, "cases": []}
        if self.path.exists():
            self.content = self.file.read_json_object()
            self.file.check_suite(self.content, self.suite, SCHEMA_VERSION)
            self.file.check_runs(self.content, self._fields)

    def runs(self, case: Case) -> list[dict[str, Any]]:
        """The runs of a case so far, oldest first."""
        found = self._find(case)
        return list(found["runs"]) if found else []

    def add(self, case: Case, run: Mapping[str, Any], surroundings: Mapping[str, Any]) -> None:
        """Add a run to those in the file, others' among them.

        Args:
            run: with its `status`, DONE, OUT_OF_MEMORY or FAILED.
            surroundings: versions, hardware and git state; runs that share them name them once.
        """
        name = hashlib.sha256(to_json_text(surroundings).encode()).hexdigest()[:12]
        with self._changing():
            self.content["surroundings"][name] = dict(surroundings)
            entry = self._find(case)
            if entry is None:
                entry = {"name": case.name, **case.identity(), "runs": []}
                self.content["cases"].append(entry)
            entry["name"] = case.name
            entry["runs"].append({**run, "surroundings": name})

    def note(self, name: str, value: Any) -> None:
        """Put something beside the runs, such as predictions, and write the file."""
        with self._changing():
            self.content[name] = value

    def drop_failed(self, cases: Sequence[Case], statuses: Collection[str] = (FAILED,)) -> None:
        """Forget the runs of cases that failed, so that they are tried again, and write the file.

        Args:
            statuses: that count as failures.
        """
        if not any(map(self._find, cases)):
            return
        with self._changing():
            for entry in filter(None, map(self._find, cases)):
                entry["runs"] = [run for run in entry["runs"] if run["status"] not in statuses]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Give the content that the file has by now, to be changed while no other process does, and write it."""
        with locked(self.path):
            self.reload()
            yield
            write_atomically(self.path, to_json_text(self.content, indent=1) + "\n")

    def _find(self, case: Case) -> dict[str, Any] | None:
        wanted = json.loads(to_json_text(case.identity()))
        return next((entry for entry in self.content["cases"] if _identity(entry) == wanted), None)


def _identity(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("name", "runs")}


def failed_run(ended: Ended) -> dict[str, Any]:
    """The result of a case whose process did not end well."""
    return {"status": FAILED, "date": now(), "code": ended.code, "lines": list(ended.lines)}


def now() -> str:
    """The time, as results have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One result of several runs: the median of each number over those that ended well, the rest from the last one.

    None without a run; where none ended well, the last one as it is.
    """
    if not runs:
        return None
    good = [run for run in runs if run["status"] == DONE]
    if not good:
        return {**runs[-1], "num_runs": 0}
    numbers = {
        name: statistics.median(values)
        for name in good[-1]
        if (values := [run[name] for run in good if is_number(run.get(name))])
    }
    return {**good[-1], **numbers, "num_runs": len(good), "num_failed": len(runs) - len(good)}


def is_number(value: Any) -> bool:
    """Whether a value of a result is a number, truth values aside."""
    return isinstance(value, int | float) and not isinstance(value, bool)

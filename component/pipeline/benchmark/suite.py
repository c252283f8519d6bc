"""The course of every measuring suite: run what lacks, take the medians, write the tables and what they stand on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from component.artifacts.benchmark_picture import Bars
from component.artifacts.lock import lock_folder
from component.pipeline.benchmark.case import TRAIN, Case
from component.pipeline.benchmark.device import check_device
from component.pipeline.benchmark.files import shape_of
from component.pipeline.benchmark.options import effort_of, files_of
from component.pipeline.benchmark.report import describe_surroundings, quick_note, write_text
from component.pipeline.benchmark.results import Results, summarize
from component.pipeline.benchmark.results_file import FieldsOf
from component.pipeline.benchmark.runner import lacking_runs, run_cases
from component.pipeline.benchmark.shared_runs import run_sharing
from component.pipeline.benchmark.table import Line

UNFINISHED = "Not all cases were run; the same command goes on."


class Suite:
    """A suite at work on the results in its output folder.

    Args:
        name: of the suite and its files.
        options: with the common ones; time begins to count now.
        fields_of: see `Results`.
        uses_scratch: whether anything is made or measured; else another suite may be at work in that folder.

    Raises:
        UserError: another command works in one of its folders, the results there are of something else or damaged, or
            an option names nothing that can be used.
    """

    def __init__(
        self,
        name: str,
        options: argparse.Namespace,
        fields_of: FieldsOf = lambda _entry: {},
        *,
        uses_scratch: bool = True,
    ) -> None:
        self._name, self._options = name, options
        # Held as long as the suite: of two commands in one folder each would take the other's files for its own.
        folders = ("output", "scratch") if uses_scratch else ("output",)
        self._locks = [lock_folder(getattr(options, key), key=f"--{key}") for key in folders]
        self._deadline = time.monotonic() + 60 * options.minutes
        self.files = files_of(options)
        self.results = Results(options.output / f"{name}.json", name, fields_of)
        self._cases: list[Case] = []
        self._is_whole = True

    @property
    def picture(self) -> Path:
        """Where its picture goes."""
        return self._options.output / f"{self._name}.png"

    def measure(self, cases: Sequence[Case], *, share_process: bool = False) -> list[Line]:
        """Run cases that lack their runs, as long as there is time, and give all with their medians.

        Args:
            share_process: they are of train.py with one model; see `shared_runs`.

        Raises:
            UserError: a model that is still to be trained is too large for a machine without a GPU.
        """
        self._cases += cases
        if self._is_whole:
            effort = effort_of(self._options, self._deadline)
            for case in lacking_runs(cases, self.results, effort):
                check_device(case.model)
            run_all = run_sharing if share_process else run_cases
            self._is_whole = run_all(cases, self.results, self.files, effort, say)
        return [Line(case, summarize(self.results.runs(case))) for case in cases]

    def runs(self, case: Case) -> list[dict[str, Any]]:
        """The runs of a case so far, as they came."""
        return self.results.runs(case)

    def write(self, *parts: str) -> None:
        """Print and write the tables, above them that they are of --quick, and below what they were measured on."""
        models = dict.fromkeys(case.model for case in self._cases)
        quick = quick_note(", ".join(map(_describe_model, models))) if self._options.quick else ""
        note = "" if self._is_whole else UNFINISHED
        surroundings = describe_surroundings(self._cases, self.results)
        print(write_text(self._options.output, self._name, [quick, *parts, note, surroundings]))


def _describe_model(model: str) -> str:
    shape = shape_of(model)
    size = "" if shape is None else f" of {shape.num_parameters / 1e6:,.1f} million parameters"
    return f"the model {Path(model).name}{size}"


def say(text: str) -> None:
    """Tell how the suite goes."""
    print(text, flush=True)


def speed_and_memory(lines: Sequence[Line]) -> list[Bars]:
    """Two panels: real tokens per second, and peak memory."""
    ours = frozenset(line.case.name for line in lines if line.case.program == TRAIN)
    speed = {line.case.name: line.number("real_tokens_per_second") for line in lines}
    peaks = {line.case.name: line.number("peak_allocated_bytes") for line in lines}
    memory = {name: peak / 2**30 if peak else None for name, peak in peaks.items()}
    bars = Bars("real tokens per second", "tokens/s", speed, ours=ours)
    return [bars, replace(bars, title="peak memory", unit="GiB allocated", values=memory, form="{:.1f}")]

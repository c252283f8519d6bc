"""The report on a run's data as files: report.html, and the picture of the lengths beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from component.artifacts.data_facts import DataFacts
from component.artifacts.data_page import FILE_NAME as PAGE_FILE
from component.artifacts.data_page import data_page
from component.artifacts.histogram import FILE_NAME as PICTURE_FILE
from component.artifacts.histogram import plot_lengths
from component.artifacts.strict_json import write_atomically
from component.pipeline.data_facts import data_facts
from component.pipeline.describe import NUM_SAMPLES
from component.pipeline.prepare import PreparedRun
from component.runtime.redaction import redact


def write_data_report(prepared: PreparedRun, folder: Path) -> None:
    """Write report.html and data_lengths.png into a run folder.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    samples = islice(prepared.data.train, NUM_SAMPLES)
    facts = data_facts(prepared, prepared.config.training, samples=samples)
    write_data_files(
        facts,
        title=folder.resolve().name,
        notices=prepared.notices,
        hints=[str(hint) for hint in prepared.hints],
        page=folder / PAGE_FILE,
        picture=folder / PICTURE_FILE,
    )


def write_data_files(
    facts: DataFacts,
    *,
    title: str,
    notices: Sequence[str],
    page: Path | None,
    picture: Path | None,
    hints: Sequence[str] = (),
) -> None:
    """Write the page and the picture that is also part of it, each where there is a place for it.

    Raises:
        MachineError: as `write_data_report`.
    """
    png = plot_lengths([split.plot for split in facts.splits])
    if picture is not None:
        write_atomically(picture, png)
    if page is not None:
        write_atomically(page, redact(data_page(facts, title=title, picture=png, notices=notices, hints=hints)))

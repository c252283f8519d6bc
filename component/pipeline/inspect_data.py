"""Look at the data of a run without its weights; script/inspect_data.py is the door to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from component.artifacts.data_facts import DataFacts
from component.artifacts.strict_json import replacing, to_bytes
from component.artifacts.terminal import one_line
from component.config.errors import DataError, UserError
from component.config.load import Config
from component.config.settle import without_foreign_values
from component.models.model_files import configure_hub
from component.pipeline.config_inputs import input_at
from component.pipeline.describe import NUM_SAMPLES, data_text
from component.pipeline.template_date import fix_template_date
from component.registry import row_kind_of
from component.runtime.distributed import rank
from component.runtime.logging import configure_logging
from component.runtime.output_file import check_output_file
from component.runtime.redaction import hide

if TYPE_CHECKING:
    from component.data.chunks import Sample
    from component.data.prepare import PreparedData
    from component.pipeline.run_data import RunData


@dataclass(frozen=True)
class Inspection:
    """What is asked for.

    Attributes:
        num_samples: samples that are shown.
        row: `file:line` of a row that is shown instead of all else, as reports name it.
        json, failures, html, png: files to write.
    """

    num_samples: int = NUM_SAMPLES
    row: str | None = None
    json: Path | None = None
    failures: Path | None = None
    html: Path | None = None
    png: Path | None = None

    def outputs(self) -> dict[str, Path]:
        """The files to write, by their options."""
        named = {"--json": self.json, "--failures": self.failures, "--html": self.html, "--png": self.png}
        return {option: path for option, path in named.items() if path is not None}


def inspect_data(config: Config, inspection: Inspection) -> Iterator[str]:
    """Prepare the data of a run, write what is asked for and give the report in lines.

    Where more rows are bad than `max_bad_rows` allows, all of that is done before the error is raised.

    Raises:
        UserError: a file cannot be written, tokenizer, template or data cannot be used, there is no such row.
    """
    hide(config.from_environment)
    configure_logging(None, rank())
    if inspection.row is not None and not re.fullmatch(r".+:\d{1,15}", inspection.row, re.DOTALL):
        raise UserError(f"--row {one_line(inspection.row)}: no file and line; write it as reports do: data.jsonl:12")
    check_outputs(config, inspection.outputs())
    config = fix_template_date(without_foreign_values(config))
    configure_hub(config.model)
    # These import transformers, which takes seconds.
    from component.data.bad_rows import check_enough
    from component.pipeline.data_facts import data_facts

    configure_logging(None, rank())  # once more: the libraries install handlers of their own when imported
    prepared = _prepare(config, keep_text=inspection.json is not None)
    data, wanted = prepared.data, inspection.row
    samples = islice(data.train, inspection.num_samples) if wanted is None else samples_of_row(data, wanted)
    facts = data_facts(prepared, config.training, samples=samples)
    notices = (*map(str, config.notices), *prepared.notices)
    _write_outputs(prepared, facts, notices, inspection)
    if wanted is None:
        yield data_text(facts)
        yield from ("", *(f"notice: {notice}" for notice in notices)) if notices else ()
    else:
        yield from _describe_row(data, facts, wanted)
    check_enough(config.data, "train_file", data.report)
    if config.data.eval_file is not None:
        check_enough(config.data, "eval_file", data.eval_report)


def _prepare(config: Config, *, keep_text: bool) -> RunData:
    """Prepare the data as a run does, also where it has too many bad rows.

    Raises:
        UserError: what the run would say.
    """
    from component.pipeline.run_data import prepare_run_data

    prepare = partial(
        prepare_run_data, config, row_kind_of(config.model.task_type), needs_model=False, keep_text=keep_text
    )
    try:
        return prepare(refuse_bad_rows=False)
    except DataError:  # of what comes after the rows, as a split of too few; the run would speak of bad ones first
        return prepare()


def check_outputs(config: Config, outputs: dict[str, Path]) -> None:
    """Find out what would keep the files from being written, and what they would overwrite.

    Raises:
        UserError: naming the option.
    """
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        check_output_file(option, path)
        owner = input_at(config, path)
        if owner is not None:
            raise UserError(f"{option} {path}: belongs to {owner}, which no output may change; name another file")
        other = taken.setdefault(path.resolve(), option)
        if other != option:
            raise UserError(f"{option} {path}: {other} names it too; give each a file of its own")


def _write_outputs(prepared: RunData, facts: DataFacts, notices: Sequence[str], inspection: Inspection) -> None:
    from component.pipeline.data_report import write_data_files
    from component.pipeline.sample_lines import failure_lines, json_lines

    # Resolved, so that it is not a link that is replaced.
    outputs = {option: path.resolve() for option, path in inspection.outputs().items()}
    if "--json" in outputs:
        _write_lines(outputs["--json"], json_lines(prepared.data, prepared.tokenizer))
    if "--failures" in outputs:
        _write_lines(outputs["--failures"], failure_lines(prepared.data.failures()))
    page, picture = outputs.get("--html"), outputs.get("--png")
    if page or picture:
        write_data_files(facts, title="data", notices=notices, page=page, picture=picture)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as file:
        for line in lines:
            file.write(to_bytes(f"{line}\n"))


def samples_of_row(data: PreparedData, row: str) -> list[Sample]:
    """The samples that were made of a row.

    Args:
        row: `file:line`, as reports name it.
    """
    found: list[Sample] = []
    for samples in (data.train, data.evaluation):
        on_line = (samples.of_rows("line") == int(row.rpartition(":")[2])).nonzero()[0]
        found += [sample for sample in samples.take_rows(on_line) if str(sample.source) == row]
    return found


def _describe_row(data: PreparedData, facts: DataFacts, row: str) -> Iterator[str]:
    """What became of a row: its samples, in full, or why it was dropped.

    Raises:
        UserError: neither became of it.
    """
    failures = [failure for failure in data.failures() if str(failure.source) == row]
    yield from (f"{failure.source}: dropped: {one_line(failure.reason)}" for failure in failures)
    if facts.samples:
        yield data_text(DataFacts((), facts.samples, ()), whole_samples=True)
    elif not failures:
        files = [file.path for report in (data.report, data.eval_report) if report for file in report.files]
        raise UserError(
            f"--row {one_line(row)}: no sample was made of it and it was not dropped; name a line of "
            f"{', '.join(files)} that is not blank and that max_samples and mixture_weights do not leave out"
        )

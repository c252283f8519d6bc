"""metrics.jsonl: one line of strict JSON for each logged step.

Its keys are step, epoch, loss (nats per supervised token), learning_rate, grad_norm, tokens_per_second,
num_supervised_tokens, num_tokens, peak_memory_bytes, and eval_* for evaluations (eval_perplexity is the exponential of
eval_loss); the writer takes any. NaN and infinite values are written as the texts "NaN", "Infinity" and "-Infinity",
and read back as floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import naming_disk_errors, restore_numbers, to_json_text, write_atomically
from component.config.errors import UserError

FILE_NAME = "metrics.jsonl"
#: What others compute with; a record need not have them.
NUMBERS = ("step", "loss", "eval_loss", "eval_perplexity", "learning_rate")


class MetricsWriter:
    """Appends to the metrics.jsonl of a run folder, or to another file of records; one process writes it (rank 0).

    Args:
        folder: exists. The half line that a killed process left at the file's end is cut off.
        file_name: of the file; each record holds its `step`.
    """

    def __init__(self, folder: Path, file_name: str = FILE_NAME) -> None:
        self.path = folder / file_name
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        size = content.rfind(b"\n") + 1
        if size < len(content):
            with open(self.path, "r+b") as file:
                file.truncate(size)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it has left the process when this returns.

        Raises:
            MachineError: the disk is full, or the place cannot be written.
        """
        with (
            naming_disk_errors(self.path),
            open(self.path, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
        ):
            file.write(to_json_text(record) + "\n")

    def cut_back(self, step: int) -> int:
        """Drop the records of later steps, for a run that goes on from a checkpoint at `step`.

        Returns:
            How many records were dropped.

        Raises:
            UserError: a line is not a record.
        """
        if not self.path.exists():
            return 0
        lines = _whole_lines(self.path)
        kept = [line for number, line in enumerate(lines, 1) if _parse(line, self.path, number).get("step", 0) <= step]
        if len(kept) < len(lines):
            write_atomically(self.path, "".join(line + "\n" for line in kept))
        return len(lines) - len(kept)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Records of a run in the order they were written; a last line without its end is left out.

    Raises:
        UserError: there is no metrics.jsonl, or a whole line of it is not a record.
    """
    path = folder / FILE_NAME
    try:
        lines = _whole_lines(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the folder of a run") from None
    return [_parse(line, path, number) for number, line in enumerate(lines, 1)]


def _whole_lines(path: Path) -> list[str]:
    # Only \n ends a line: str.splitlines would also split at U+2028, which JSON texts may hold.
    return path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}:{number}: not a metrics record; remove the line")
    record = restore_numbers(record)
    for name in NUMBERS:
        value = record.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int if name == "step" else (int, float)):
            raise UserError(f"{path}:{number}: {name}: got {json.dumps(value)}, which is no number; remove the line")
    return record

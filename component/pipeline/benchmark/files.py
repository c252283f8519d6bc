"""Where a benchmark keeps checkpoints, rows and runs, and how a case becomes a command on them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from component.artifacts.strict_json import write_atomically
from component.config.errors import EXIT_USER, MachineError, UserError
from component.pipeline.benchmark.case import TRAIN, Case, Rows, file_name
from component.pipeline.benchmark.checkpoint import is_complete
from component.pipeline.benchmark.child import run_child
from component.pipeline.benchmark.plan_cases import CASE_SHAPES
from component.pipeline.benchmark.rows import one_token_words, write_rows
from component.pipeline.benchmark.sources import check_model, read_model_sizes
from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.shape import ModelShape, read_shape

#: What the command line calls the making of a checkpoint, which needs a process of its own: it takes a GPU's memory.
MAKE_CHECKPOINT = ("script/benchmark.py", "checkpoint")


@dataclass
class Files:
    """Files of the cases, made when they are first asked for.

    Args:
        folder: of all that can be made again: checkpoints, rows, runs.
        tokenizer: a folder whose tokenizer random checkpoints get; None trains one.
    """

    folder: Path
    tokenizer: Path | None = None
    _words: dict[Path, list[str]] = field(default_factory=dict)
    _failed: dict[str, MachineError] = field(default_factory=dict)

    def checkpoint(self, model: str) -> Path:
        """The folder of a model: a real one as it is, or random weights of a shape.

        Raises:
            UserError: there is neither such a folder nor such a shape, or the folder holds no checkpoint.
            MachineError: it could not be made; the end of the output is in the message.
        """
        if Path(model).is_dir():
            check_model(Path(model))
            return Path(model).absolute()
        if model in self._failed:
            raise self._failed[model]
        sizes_of(model)
        target = self.folder / "models" / self.checkpoint_name(model)
        if is_complete(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        if log_of(target).is_file():
            shutil.rmtree(target, ignore_errors=True)  # what an earlier command was making when it ended
        command = [sys.executable, *MAKE_CHECKPOINT, "--shape", model, "--output", str(target)]
        command += [] if self.tokenizer is None else ["--tokenizer", str(self.tokenizer.absolute())]
        ended = run_child(command, log=log_of(target))
        if ended.code:
            shutil.rmtree(target, ignore_errors=True)
            if ended.code == EXIT_USER and ended.lines:
                raise UserError(ended.lines[-1])
            self._failed[model] = MachineError(f"a checkpoint of {model} cannot be made:", *ended.lines)
            raise self._failed[model]
        return target

    def checkpoint_name(self, model: str) -> str:
        """Name of the folder of a shape's random weights; one of the same sizes by another name is the same."""
        sizes = sizes_of(model)
        name = file_name(next((name for name, known in CASE_SHAPES.items() if known == sizes), model))
        return name if self.tokenizer is None else f"{name}-{self.tokenizer.name}"

    def rows(self, model: str, rows: Rows, *, seed: int = 0) -> Path:
        """The file of a case's rows, whose lengths are counted with the model's tokenizer."""
        checkpoint = self.checkpoint(model)
        if checkpoint not in self._words:
            self._words[checkpoint] = one_token_words(checkpoint)
        words = self._words[checkpoint]
        content = json.dumps([vars(rows), words, seed])
        path = self.folder / "rows" / f"{rows.kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(path, rows, words, seed=seed)
        return path

    def prepare(self, case: Case) -> tuple[list[str], Path]:
        """Write the settings file of a case.

        Returns:
            The command, and the folder that the child writes into, which is empty.
        """
        output = self.folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        settings: dict[str, Any] = {
            **case.settings,
            "model_name_or_path": str(self.checkpoint(case.model)),
            "train_file": str(self.rows(case.model, case.rows)),
            "output_dir": str(output),
        }
        if case.evaluation is not None:
            settings["eval_file"] = str(self.rows(case.model, case.evaluation, seed=1))
        if case.program == TRAIN:
            settings["cache_dir"] = str(self.folder / "cache")
            if case.settings.get("train_mode") == "qlora":
                settings.setdefault("quantized_cache", False)  # each case starts as the first one does
        path = self.folder / "settings.json"
        write_atomically(path, json.dumps(settings, indent=1) + "\n")
        command = [sys.executable, case.program, "--train_args_file", str(path)]
        if case.program == TRAIN:
            return [*command, "--resume", "never"], output
        return [*command, "--warm_up", str(case.warm_up)], output


def sizes_of(model: str) -> Mapping[str, Any]:
    """What config.json of a shape says.

    Args:
        model: a name of CASE_SHAPES or KNOWN_CONFIGS.

    Raises:
        UserError: there is no such shape.
    """
    sizes = CASE_SHAPES.get(model) or KNOWN_CONFIGS.get(model)
    if sizes is None:
        raise UserError(
            f"--model: {model} is neither a folder nor a known shape; use a folder with a checkpoint, or one of "
            f"{', '.join(CASE_SHAPES)}, or an id of component/planning/known_shapes.py"
        )
    return sizes


def shape_of(model: str) -> ModelShape | None:
    """The shape of a case's model; None where the planner does not know its layers."""
    return read_shape(read_model_sizes(Path(model)) if Path(model).is_dir() else sizes_of(model))


def log_of(checkpoint: Path) -> Path:
    """The output of what made a checkpoint; those that were not made here have none."""
    return checkpoint.with_name(f"{checkpoint.name}.log")

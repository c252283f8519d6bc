"""Each task through train.py on each loader, on rows of chat length: that it runs, how fast, in how much memory."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from component.artifacts.lock import lock_folder
from component.artifacts.metrics import read_metrics
from component.artifacts.strict_json import write_atomically
from component.config.errors import UserError
from component.pipeline.benchmark.child import ending_with_this_process
from component.pipeline.benchmark.device import check_device
from component.pipeline.benchmark.measured import median_speed_after
from component.pipeline.benchmark.report import write_text
from component.pipeline.benchmark.sources import read_model_sizes
from component.registry import TASK_ROW_KINDS
from component.runtime.command import folder_path, non_empty, positive_int
from component.runtime.environment import REPOSITORY

SUITE, NUM_ROWS = "tasks", 400
TITLES = (
    "| task | loader | real tokens/s | median | peak allocated GiB | reserved | load s |\n|---|---|---|---|---|---|---|"
)
#: Each is one token of the usual tokenizers, with the space before it.
WORDS = (
    "the", "of", "and", "river", "light", "number", "stone", "green", "walk", "carry", "answer", "question", "while",
    "under", "people", "house", "water", "small", "great",
)  # fmt: skip
#: Of every run; a base of the task adds nothing that changes memory or speed.
SETTINGS: Mapping[str, Any] = {
    "train_mode": "qlora",
    "max_seq_length": 1024,
    "truncation": "keep_start",
    "lora_rank": 64,
    "lora_alpha": 16,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "learning_rate": 1e-4,
    "save_strategy": "no",
    "optim": "paged_adamw_32bit",
}
#: Task -> what it has otherwise.
OF_TASK: Mapping[str, Mapping[str, Any]] = {
    "pretrain": {"per_device_train_batch_size": 8},
    "sft": {"per_device_train_batch_size": 8},
    "grpo": {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "reward_functions": ["length"],
        "reward_arguments": {"length": {"max_tokens": 64}},
        "num_generations": 8,
        "max_completion_length": 64,
        "beta": 0.04,
    },
}


@dataclass(frozen=True)
class TaskResult:
    """What a run of train.py measured; `code` is its exit code, and the rest None where that is not 0.

    The median is over the steps after the first: Unsloth compiles in some, which a mean of so few contains.
    """

    task: str
    loader: str
    code: int
    tokens_per_second: float | None = None
    median_tokens_per_second: float | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    load_seconds: float | None = None
    losses: tuple[float, ...] = ()
    last_line: str = ""

    def row(self) -> str:
        """A line of the table."""
        if self.code:
            return f"| {self.task} | {self.loader} | exit {self.code}: {self.last_line} | | | | |"
        gib = " | ".join(
            "-" if value is None else f"{value / 2**30:.2f}"
            for value in (self.peak_allocated_bytes, self.peak_reserved_bytes)
        )
        speeds = " | ".join(
            "-" if value is None else f"{value:,.0f}"
            for value in (self.tokens_per_second, self.median_tokens_per_second)
        )
        return f"| {self.task} | {self.loader} | {speeds} | {gib} | {self.load_seconds:.0f} |"


def compare_tasks(
    model: str,
    folder: Path,
    *,
    tasks: Sequence[str],
    loaders: Sequence[str],
    steps: int,
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> list[TaskResult]:
    """Run each task on each loader, one after the other, and show the table as it grows.

    Args:
        steps: optimizer steps of a run; grpo samples for each.
        overrides: KEY=VALUE for every run.

    Raises:
        UserError: there is no such task.
    """
    unknown = [task for task in tasks if task not in TASK_ROW_KINDS]
    if unknown:
        raise UserError(f"--tasks: there is no task {unknown[0]}; use {', '.join(TASK_ROW_KINDS)}")
    folder.mkdir(parents=True, exist_ok=True)
    say(TITLES)
    results = []
    for task in tasks:
        rows = folder / f"{TASK_ROW_KINDS[task]}.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in make_rows(TASK_ROW_KINDS[task])), encoding="utf-8")
        for loader in loaders:
            settings = {
                **SETTINGS, **OF_TASK.get(task, {}), "task_type": task, "max_steps": steps, "train_file": str(rows),
                "model_name_or_path": model, "use_unsloth": "require" if loader == "unsloth" else False,
                "output_dir": str(folder / f"{task}-{loader}"),
            }  # fmt: skip
            results.append(_run(task, loader, settings, overrides, folder))
            say(results[-1].row())
    write_text(folder, SUITE, ["\n".join([TITLES, *(result.row() for result in results)])])
    write_atomically(folder / f"{SUITE}.json", json.dumps([vars(result) for result in results], indent=2) + "\n")
    return results


def _run(task: str, loader: str, settings: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> TaskResult:
    config = folder / f"{task}-{loader}.json"
    config.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    command = [sys.executable, "train.py", "--train_args_file", str(config), "--resume", "never", *overrides]
    finished = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, preexec_fn=ending_with_this_process()
    )
    output = finished.stdout + finished.stderr
    config.with_suffix(".log").write_text(output, encoding="utf-8")
    if finished.returncode:
        lines = [line for line in output.splitlines() if line.strip()]
        return TaskResult(task, loader, finished.returncode, last_line=lines[-1] if lines else "")
    run_folder = Path(settings["output_dir"])
    manifest = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    metrics = manifest["metrics"]
    records = [line for line in read_metrics(run_folder) if "loss" in line]
    return TaskResult(
        task,
        loader,
        0,
        metrics["real_tokens_per_second"],
        median_speed_after(records, warm_up=1),
        metrics["peak_allocated_bytes"],
        metrics["peak_reserved_bytes"],
        manifest["timings"]["load_seconds"],
        tuple(record["loss"] for record in records),
    )


def make_rows(row_kind: str) -> Iterator[dict[str, Any]]:
    """Rows of one kind; the same ones each time.

    Args:
        row_kind: as formats name it.
    """
    generator = random.Random(0)

    def turn(role: str, least: int, most: int) -> dict[str, str]:
        """A turn of so many random words."""
        return {"role": role, "content": " ".join(generator.choices(WORDS, k=generator.randint(least, most)))}

    def user() -> dict[str, str]:
        """A question."""
        return turn("user", 40, 160)

    def answer() -> dict[str, str]:
        """An answer."""
        return turn("assistant", 60, 400)

    for number in range(NUM_ROWS):
        if row_kind == "text":
            yield {"text": answer()["content"]}
        elif row_kind == "messages":
            yield {"messages": [user(), answer(), user(), answer()]}
        elif row_kind == "preference":
            yield {"prompt": [user()], "chosen": [answer()], "rejected": [answer()]}
        elif row_kind == "labelled":
            yield {"prompt": [user()], "completion": [answer()], "label": number % 2 == 1}
        else:
            yield {"prompt": [user()], "solution": str(number)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    parser.add_argument(
        "--model", required=True, type=non_empty, metavar="FOLDER",
        help="a checkpoint, or its hub id; script/make_tiny_model.py makes random ones",
    )  # fmt: skip
    parser.add_argument("--tasks", nargs="+", default=["sft", "dpo", "grpo"], metavar="TASK")
    parser.add_argument("--loaders", nargs="+", default=["vanilla", "unsloth"], choices=["vanilla", "unsloth"])
    parser.add_argument("--steps", type=positive_int, default=8, metavar="N")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override a key of every run")
    parser.add_argument("--output", default=Path("output/benchmark/tasks"), type=folder_path, metavar="FOLDER")


def run_suite(options: argparse.Namespace) -> None:
    """Run tasks through train.py.

    Raises:
        UserError: there is no such model, it is too large for a machine without a GPU, or another command works in the
            folder.
    """
    read_model_sizes(Path(options.model))  # tells what is no model before anything is made for it
    _lock = lock_folder(options.output, key="--output")
    if Path(options.model).is_dir():
        check_device(options.model, instead="name a small model (script/make_tiny_model.py)")
    compare_tasks(
        options.model,
        options.output.absolute(),
        tasks=options.tasks,
        loaders=options.loaders,
        steps=options.steps,
        overrides=options.set,
        say=lambda text: print(text, flush=True),
    )

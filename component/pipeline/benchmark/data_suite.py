"""Lampyris' preparation of conversations beside others' ways with the same rows: a table, its numbers and a picture."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from component.artifacts.lock import lock_folder
from component.config.errors import MachineError
from component.pipeline.benchmark.child import ending_with_this_process
from component.pipeline.benchmark.options import add_quick
from component.pipeline.benchmark.report import quick_note
from component.pipeline.benchmark.sources import check_tokenizer_name
from component.runtime.command import folder_path, non_empty, positive_int
from component.runtime.environment import REPOSITORY, package_versions
from component.runtime.hardware import cpu_name

_SCRIPT = "script/baselines/data_preparation.py"
_PACKAGES = ("tokenizers", "transformers", "trl", "datasets", "pyarrow", "torch")
#: Words of the generated rows: frequent ones, which are one token each, and made-up ones, which are several.
_FREQUENT = """
the of and to in is that it was for on are as with his they at be this have from or one had by but not what
all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part over new
sound take only little work know place year live me back give most very after thing our just name good
sentence man think say great where help through much before line right too mean old any same tell boy follow
came want show also around form three small set put end does another well large must big even such because
turn here why
"""
_SYLLABLES = [
    begin + vowel + end for begin in "bcdfglmnprstvz" for vowel in "aeiou" for end in ("", "n", "r", "st", "l")
]
_SIGNS = (
    *(". ", ", ") * 12,
    ": ",
    "; ",
    "\n",
    ".\n\n- ",
    " (",
    ") ",
    "? ",
    " 2024 ",
    " 17.5 ",
    " = ",
    " – ",
    " naïve ",
)


@dataclass(frozen=True)
class Way:
    """A line of the table: its name, the arguments of the script that measures it, and whether it has one core only."""

    name: str
    arguments: tuple[str, ...]
    one_core: bool

    @property
    def cores(self) -> str:
        """The cores that it may use: one, or all."""
        return "one" if self.one_core else "all"


@dataclass(frozen=True)
class Measured:
    """Medians of the repetitions of a way."""

    way: Way
    seconds: dict[str, float]
    cpu_seconds: float
    peak_bytes: int
    bytes_before: int


def list_ways(num_cores: int, *, one_core_too: bool = True) -> list[Way]:
    """Everything that is measured, on one core and on all; the baseline stands first in each half."""
    ways = []
    for one_core in (True, False) if one_core_too else (False,):
        ways += [
            Way("plain rendering + batched encoding", ("plain",), one_core),
            Way("Lampyris", ("lampyris",), one_core),
            Way("Lampyris, stage by stage", ("lampyris", "--stages"), one_core),
            Way("apply_chat_template, row by row", ("apply_chat_template",), one_core),
            Way("Firefly's way, turn by turn", ("firefly",), one_core),
            Way("TRL, num_proc 1", ("trl", "--num_proc", "1"), one_core),
        ]
    processes = max(2, num_cores)
    return [*ways, Way(f"TRL, num_proc {processes}", ("trl", "--num_proc", str(processes)), False)]


def write_chat_rows(path: Path, num_rows: int, seed: int = 0) -> None:
    """Write conversations of one to three turns, of log-normal length, 194 Qwen2.5 tokens on average."""
    generator, frequent = random.Random(seed), _FREQUENT.split()
    rare = ["".join(generator.choices(_SYLLABLES, k=generator.choice((1, 2, 2, 3)))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(rare))))
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_rows):
            num_turns = generator.choice((1, 1, 2, 3))
            num_words = max(8, min(700, int(generator.lognormvariate(4.06, 0.75)))) // num_turns
            messages = []
            for _ in range(num_turns):
                for role, count in (("user", num_words // 4 + 4), ("assistant", num_words)):
                    words = generator.choices(frequent, k=count)
                    for place in range(0, count, 4):
                        words[place : place + 1] = generator.choices(rare, cum_weights=weights)
                    text = "".join(
                        word + (generator.choice(_SIGNS) if generator.random() < 0.12 else " ") for word in words
                    )
                    messages.append({"role": role, "content": text.strip().capitalize()})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def measure(
    ways: Sequence[Way], rows: Path, tokenizer: str, repository: Path, *, repeats: int, scratch: Path
) -> list[Measured]:
    """Measure each way in processes of its own, all ways in turn and that several times.

    Raises:
        MachineError: one of them failed; the end of its output is in the message.
    """
    results: dict[Way, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, found in results.items():
            found.append(_measure_once(way, rows, tokenizer, repository, scratch))
    return [_medians(way, found) for way, found in results.items()]


def _measure_once(way: Way, rows: Path, tokenizer: str, repository: Path, scratch: Path) -> dict[str, Any]:
    output = scratch / "measured.json"
    command = [sys.executable, str(repository / _SCRIPT), *way.arguments, *(["--one_core"] if way.one_core else [])]
    command += ["--rows", str(rows), "--tokenizer", tokenizer, "--scratch", str(scratch), "--json", str(output)]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=ending_with_this_process()
    )
    if done.returncode:
        raise MachineError(f"benchmark: {way.name} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(output.read_text(encoding="utf-8"))


def _medians(way: Way, found: Sequence[dict[str, Any]]) -> Measured:
    stages = {stage: statistics.median(item["seconds"][stage] for item in found) for stage in found[0]["seconds"]}
    others = {
        key: statistics.median(item[key] for item in found) for key in ("cpu_seconds", "peak_bytes", "bytes_before")
    }
    return Measured(way, stages, others["cpu_seconds"], int(others["peak_bytes"]), int(others["bytes_before"]))


def render_table(measured: Sequence[Measured], num_rows: int) -> str:
    """Render the results as Markdown; a ratio compares with the first way on as many cores."""
    lines = [
        "| way | cores | rows/s | seconds | ratio | CPU seconds | ratio | peak MiB | of the data | stages, seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    baseline: dict[bool, Measured] = {}
    for item in measured:
        first = baseline.setdefault(item.way.one_core, item)
        stages = ", ".join(f"{name} {value:.2f}" for name, value in item.seconds.items() if name != "total")
        memory = f"{item.peak_bytes / 2**20:,.0f} | {(item.peak_bytes - item.bytes_before) / 2**20:,.0f} | {stages} |"
        if "total" not in item.seconds:
            lines.append(f"| {item.way.name} | {item.way.cores} | | | | | | {memory}")
            continue
        total, cpu = item.seconds["total"], item.cpu_seconds
        lines.append(
            f"| {item.way.name} | {item.way.cores} | {num_rows / total:,.0f} | {total:.2f} "
            f"| {total / first.seconds['total']:.2f} | {cpu:.2f} | {cpu / first.cpu_seconds:.2f} | {memory}"
        )
    return "\n".join(lines)


def draw(measured: Sequence[Measured], num_rows: int, path: Path) -> None:
    """Draw rows per second of each way as bars, one core above all cores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [item for item in measured if "total" in item.seconds][::-1]
    figure = Figure(figsize=(8, 0.4 * len(shown) + 1.2), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = ["#d1602b" if item.way.name == "Lampyris" else "#2f6db3" for item in shown]
    names = [f"{item.way.name} ({item.way.cores})" for item in shown]
    bars = axes.barh(names, [num_rows / item.seconds["total"] for item in shown], color=colors)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_xlabel("rows per second")
    axes.set_title("Preparing conversations, on one core and on all", loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    path.write_bytes(picture.getvalue())


def compare_preparations(
    tokenizer: str,
    repository: Path,
    output: Path,
    *,
    num_rows: int,
    repeats: int,
    say: Callable[[str], None],
    one_core_too: bool = True,
    note: str = "",
) -> list[Measured]:
    """Measure all ways and write data.md, data.json and data.png.

    Args:
        tokenizer: folder or hub id of a tokenizer with a template that TRL can mask: Qwen2.5's, Llama 3's.
        output: folder of the results.
        one_core_too: measure everything on one core before it is measured on all.
        say: takes the table.
        note: above the table.

    Raises:
        MachineError: a way failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as folder:
        rows = Path(folder) / "rows.jsonl"
        write_chat_rows(rows, num_rows)
        ways = list_ways(len(os.sched_getaffinity(0)), one_core_too=one_core_too)
        measured = measure(ways, rows, tokenizer, repository, repeats=repeats, scratch=Path(folder))
    versions = {name: version for name, version in package_versions(repository).items() if name in _PACKAGES}
    facts = {
        "tokenizer": Path(tokenizer).name,
        "num_rows": num_rows,
        "repeats": repeats,
        "cpu": cpu_name(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "versions": versions,
    }
    table = render_table(measured, num_rows)
    settings = ", ".join(f"{name} {value}" for name, value in {**facts, "versions": ""}.items() if value)
    text = (
        f"{note}{table}\n\nMedians; {settings}; {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    say(text)
    (output / "data.md").write_text(text + "\n", encoding="utf-8")
    results = {"facts": facts, "ways": [asdict(item) for item in measured]}
    (output / "data.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(measured, num_rows, output / "data.png")
    return measured


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    parser.add_argument(
        "--tokenizer", required=True, type=non_empty, help="folder or hub id; its template is one that TRL can mask"
    )
    parser.add_argument("--rows", type=positive_int, default=20_000, metavar="N")
    parser.add_argument("--repeats", type=positive_int, default=3, metavar="N", help="the table has the medians")
    quick = "200 rows, once, on all cores: shows that it runs, measures nothing"
    add_quick(parser, quick, replaces=("--rows", "--repeats"))
    parser.add_argument("--output", default=Path("output/benchmark/data"), type=folder_path, metavar="FOLDER")


def run_suite(options: argparse.Namespace) -> None:
    """Measure the preparation of conversations.

    Raises:
        UserError: `--tokenizer` names none, or another command works in the folder.
        MachineError: a way failed.
    """
    _lock = lock_folder(options.output, key="--output")
    check_tokenizer_name(options.tokenizer)
    compare_preparations(
        options.tokenizer,
        REPOSITORY,
        options.output,
        num_rows=200 if options.quick else options.rows,
        repeats=1 if options.quick else options.repeats,
        one_core_too=not options.quick,
        note=f"{quick_note('200 rows, each way once', 'all cores')}\n\n" if options.quick else "",
        say=print,
    )

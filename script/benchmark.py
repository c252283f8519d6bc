"""Benchmarks that anyone can rerun; each prints a table of what it measured side by side.

    python script/benchmark.py data --tokenizer Qwen/Qwen2.5-7B-Instruct
    python script/benchmark.py loaders --model output/llama3-8b-random
    python script/benchmark.py plan
    python script/benchmark.py tasks --model output/llama3-8b-random

`data`: the preparation of conversations against plain rendering and encoding, and against others' ways; needs no GPU.
`plan`: predicted memory and time against measured ones, on random weights that it makes itself, on one GPU.
`tasks`: each task through train.py on each loader, its speed and memory; `--set KEY=VALUE ...` goes to every run.
`loaders`: train.py with a config against the bare loop of each loader, rows full of real tokens, on one GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.pipeline.benchmark.data_suite import compare_preparations
from component.pipeline.benchmark.plan_measurement import measure_cases
from component.pipeline.benchmark.plan_suite import cases_of, compare_plans
from component.pipeline.benchmark.task_suite import compare_tasks
from component.runtime.command import non_empty, positive_int, run_command

REPOSITORY = Path(__file__).resolve().parent.parent


def write_full_rows(path: Path, num_rows: int, num_words: int) -> None:
    """Write conversations whose answers fill any length of `num_words` tokens or less."""
    generator = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_rows):
            answer = " ".join(str(generator.randrange(10_000)) for _ in range(num_words))
            file.write(json.dumps({"conversation": [{"human": "Count.", "assistant": answer}]}) + "\n")


def run_timed(command: list[str], log: Path) -> float:
    """Run a command with its output in `log`; returns its seconds.

    Raises:
        SystemExit: it failed; the end of its output is shown.
    """
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:], sep="\n")
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
    return time.monotonic() - began


def measure_train(options: argparse.Namespace, folder: Path, loader: str) -> dict[str, Any]:
    """Train with train.py; the numbers come from run.json."""
    output = folder / f"train-{loader}"
    command = [sys.executable, "train.py", "--train_args_file", options.train_args_file, "--resume", "never"]
    overrides = {
        "model_name_or_path": options.model,
        "train_file": folder / "rows.jsonl",
        "output_dir": output,
        "use_unsloth": "require" if loader == "unsloth" else "false",
        "max_seq_length": options.max_seq_length,
        "per_device_train_batch_size": options.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": options.steps + 2,
        "truncation": "keep_start",
        "logging_steps": options.steps // 2 + 1,
        "save_strategy": "no",
    }
    seconds = run_timed(
        [*command, *(f"{key}={value}" for key, value in overrides.items())], folder / f"train-{loader}.log"
    )
    metrics = json.loads((output / "run.json").read_text(encoding="utf-8"))["metrics"]
    return {**metrics, "tokens_per_second": metrics["real_tokens_per_second"], "seconds": seconds}


def measure_bare(options: argparse.Namespace, folder: Path, loader: str) -> dict[str, Any]:
    """Train with the bare loop."""
    result = folder / f"bare-{loader}.json"
    sizes = {"model": options.model, "max_seq_length": options.max_seq_length, "batch": options.batch}
    command = [sys.executable, "script/baselines/bare_loop.py", "--loader", loader, "--json", str(result)]
    for name, value in {**sizes, "steps": options.steps}.items():
        command += [f"--{name}", str(value)]
    seconds = run_timed(command, folder / f"bare-{loader}.log")
    return {**json.loads(result.read_text(encoding="utf-8")), "seconds": seconds}


def compare_loaders(options: argparse.Namespace) -> None:
    """Measure each loader bare and through train.py, in turn, and print the table."""
    folder = Path(options.output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_full_rows(folder / "rows.jsonl", (options.steps + 2) * options.batch, options.max_seq_length)
    results = {}
    print("| run | tokens/s | peak allocated GiB | peak reserved GiB | wall s |\n|---|---|---|---|---|", flush=True)
    for loader in options.loaders:
        for name, measure in (("bare loop", measure_bare), ("train.py", measure_train)):
            result = results[f"{loader}, {name}"] = measure(options, folder, loader)
            allocated, reserved = (result[f"peak_{kind}_bytes"] / 2**30 for kind in ("allocated", "reserved"))
            speed, seconds = result["tokens_per_second"], result["seconds"]
            print(f"| {loader}, {name} | {speed:,.0f} | {allocated:.2f} | {reserved:.2f} | {seconds:.0f} |", flush=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def compare_data(options: argparse.Namespace) -> None:
    """Measure the preparation of conversations."""
    compare_preparations(
        options.tokenizer,
        REPOSITORY,
        Path(options.output),
        num_rows=200 if options.quick else options.rows,
        repeats=1 if options.quick else options.repeats,
        one_core_too=not options.quick,
        say=print,
    )


def compare_predictions(options: argparse.Namespace) -> None:
    """Hold the planner against measurements; `--measure` is what the suite calls itself with, for each loader."""
    folder = Path(options.output).absolute()
    models = Path(options.models).absolute() if options.models else folder / "models"
    if options.measure is None:
        compare_plans(folder, models, quick=options.quick, minutes=options.minutes, say=print)
    else:
        deadline = time.monotonic() + 60 * options.minutes
        measure_cases(cases_of(options.measure, quick=options.quick), folder, models, deadline=deadline)


def compare_runs_of_tasks(options: argparse.Namespace) -> None:
    """Run tasks through train.py."""
    compare_tasks(
        options.model,
        Path(options.output).absolute(),
        tasks=options.tasks,
        loaders=options.loaders,
        steps=options.steps,
        overrides=options.set,
        say=lambda text: print(text, flush=True),
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suites = parser.add_subparsers(required=True, metavar="SUITE")
    data = suites.add_parser("data", help="preparation of conversations, beside others' ways")
    data.add_argument(
        "--tokenizer", required=True, type=non_empty, help="folder or hub id; its template is one that TRL can mask"
    )
    data.add_argument("--rows", type=positive_int, default=20_000, metavar="N")
    data.add_argument("--repeats", type=positive_int, default=3, metavar="N", help="the table has the medians")
    data.add_argument(
        "--quick", action="store_true", help="200 rows, once, on all cores: shows that it runs, measures nothing"
    )
    data.add_argument("--output", default="output/benchmark-data", type=non_empty, metavar="FOLDER")
    data.set_defaults(suite=compare_data)
    loaders = suites.add_parser("loaders", help="train.py against bare loops")
    loaders.add_argument("--model", required=True, help="a checkpoint; script/make_tiny_model.py makes random ones")
    loaders.add_argument("--train_args_file", default="train_args/sft/qlora/llama3-8b.json")
    loaders.add_argument("--loaders", nargs="+", default=["vanilla", "unsloth"], choices=["vanilla", "unsloth"])
    loaders.add_argument("--max_seq_length", type=int, default=2048)
    loaders.add_argument("--batch", type=int, default=4)
    loaders.add_argument("--steps", type=int, default=20)
    loaders.add_argument("--output", default="output/benchmark-loaders")
    loaders.set_defaults(suite=compare_loaders)
    plan = suites.add_parser("plan", help="predictions of the planner against measurements")
    plan.add_argument("--quick", action="store_true", help="two tiny configs, also on a CPU: shows that it runs")
    plan.add_argument("--minutes", type=float, default=30, metavar="N", help="no further config begins after these")
    plan.add_argument("--models", type=non_empty, metavar="FOLDER", help="where random checkpoints are made, 40 GB")
    plan.add_argument("--measure", choices=["vanilla", "unsloth"], help=argparse.SUPPRESS)
    plan.add_argument("--output", default="output/benchmark-plan", type=non_empty, metavar="FOLDER")
    plan.set_defaults(suite=compare_predictions)
    of_tasks = suites.add_parser("tasks", help="each task on each loader")
    of_tasks.add_argument("--model", required=True, help="a checkpoint; script/make_tiny_model.py makes random ones")
    of_tasks.add_argument("--tasks", nargs="+", default=["sft", "dpo", "grpo"], metavar="TASK")
    of_tasks.add_argument("--loaders", nargs="+", default=["vanilla", "unsloth"], choices=["vanilla", "unsloth"])
    of_tasks.add_argument("--steps", type=positive_int, default=8, metavar="N")
    of_tasks.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override a key of every run")
    of_tasks.add_argument("--output", default="output/benchmark-tasks", type=non_empty, metavar="FOLDER")
    of_tasks.set_defaults(suite=compare_runs_of_tasks)
    return parser.parse_args()


def main() -> int:
    """Run a suite."""
    options = parse_arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    options.suite(options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

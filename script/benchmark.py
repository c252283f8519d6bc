"""Benchmarks that anyone can rerun; each prints a table of what it measured side by side.

    python script/benchmark.py chat
    python script/benchmark.py firefly --minutes 10
    python script/benchmark.py memory --measure
    python script/benchmark.py auto
    python script/benchmark.py loaders --model output/llama3-8b-random
    python script/benchmark.py data --tokenizer Qwen/Qwen2.5-7B-Instruct
    python script/benchmark.py plan
    python script/benchmark.py plan --capped docs/benchmarks/plan.json
    python script/benchmark.py quality

docs/benchmarks.md says what each measures and what its columns mean; `--help` of a suite has its options.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.pipeline.benchmark import (
    auto_suite,
    chat_suite,
    checkpoint_command,
    data_suite,
    firefly_suite,
    loader_suite,
    memory_suite,
    plan_suite,
    quality_suite,
    shared_runs,
    task_suite,
)
from component.pipeline.benchmark.options import check_quick
from component.runtime.command import run_command

#: Name -> module with `add_options` and `run_suite`, and what it measures.
SUITES = {
    "chat": (chat_suite, "rows of chat length: Firefly's recipe, Unsloth's own trainer, Lampyris"),
    "firefly": (firefly_suite, "the published table of Firefly x Unsloth, and tuned settings"),
    "memory": (memory_suite, "least memory of 1B to 70B, and the longest context that fits a card"),
    "auto": (auto_suite, "`auto` settings against the best of a grid, under caps of memory"),
    "loaders": (loader_suite, "train.py against bare loops"),
    "tasks": (task_suite, "each task on each loader"),
    "plan": (plan_suite, "predictions of the planner against measurements"),
    "quality": (quality_suite, "what each mode and loader learns, over five seeds; gradients against float32"),
    "data": (data_suite, "preparation of conversations, beside others' ways; needs no GPU"),
    "checkpoint": (checkpoint_command, "no suite: make the random checkpoint that suites make themselves"),
    "runs": (shared_runs, "no suite: runs that share a process, which suites call"),
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: --quick would pass over an option that is there.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suites = parser.add_subparsers(required=True, metavar="SUITE", dest="chosen")
    for name, (module, description) in SUITES.items():
        suite = suites.add_parser(name, help=description, description=module.__doc__.splitlines()[0])
        module.add_options(suite)
        suite.set_defaults(run=module.run_suite)
    options = parser.parse_args()
    check_quick(suites.choices[options.chosen], options, sys.argv[2:])
    return options


def main() -> int:
    """Run a suite."""
    options = parse_arguments()
    # As Ctrl-C: a benchmark that a time limit ends must leave no child behind that holds the GPU.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    options.run(options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

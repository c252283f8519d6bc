"""Padded rows beside packed ones on each kernel, on chat-length data, through train.py; one GPU.

    python script/benchmark_packing.py --model output/llama3-8b-random

Lengths are log-normal with a mean of 330 tokens, at most max_seq_length. Speeds count real tokens only, after the steps
up to the first logged one, which hold compilation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
MEAN_TOKENS, SPREAD = 330, 0.8
#: Each is one token of the usual tokenizers, with the space before it.
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")
#: Tokens that a chat template puts around a question and its answer, about.
FRAME_TOKENS = 24


@dataclass(frozen=True)
class Variant:
    """One run of train.py: its loader, rows in a micro-batch, keys and environment."""

    use_unsloth: str
    batch: int
    keys: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


PACKED = {"packing": "true"}
VARIANTS = {
    "vanilla, padded": Variant("false", 8, {}),
    "vanilla, packed, SDPA": Variant("false", 4, {**PACKED, "attn_implementation": "sdpa"}),
    "vanilla, packed, flex_attention": Variant("false", 4, {**PACKED, "attn_implementation": "flex_attention"}),
    "vanilla, packed, varlen": Variant("false", 4, {**PACKED, "attn_implementation": "varlen"}),
    "Unsloth, padded": Variant("require", 8, {}),
    "Unsloth, packed, without the kernel": Variant("require", 4, PACKED, {"UNSLOTH_TORCH_VARLEN": "0"}),
    "Unsloth, packed": Variant("require", 4, PACKED),
    "Unsloth, packed, no checkpointing": Variant("require", 4, {**PACKED, "gradient_checkpointing": "false"}),
}


def write_chats(path: Path, *, num_rows: int, max_tokens: int) -> None:
    """Write conversations of one turn with log-normal lengths; the same ones each time."""
    generator = random.Random(0)
    middle = math.log(MEAN_TOKENS) - SPREAD**2 / 2
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_rows):
            num_tokens = min(int(generator.lognormvariate(middle, SPREAD)), max_tokens)
            num_words = max(num_tokens - FRAME_TOKENS, 4)
            words = [generator.choice(WORDS) for _ in range(num_words)]
            asked = max(num_words // 4, 2)
            turn = {"human": " ".join(words[:asked]), "assistant": " ".join(words[asked:])}
            file.write(json.dumps({"conversation": [turn]}) + "\n")


def measure(variant: Variant, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train with train.py and read run.json.

    Raises:
        subprocess.CalledProcessError: it failed; its output is in train.log.
    """
    keys = {
        "model_name_or_path": options.model,
        "train_file": options.data,
        "output_dir": folder,
        "use_unsloth": variant.use_unsloth,
        "max_seq_length": options.max_seq_length,
        "per_device_train_batch_size": variant.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": options.warm_up + options.steps,
        "logging_steps": options.warm_up,
        "save_strategy": "no",
        "truncation": "keep_start",
        **variant.keys,
    }
    command = [sys.executable, "train.py", "--train_args_file", options.train_args_file, "--resume", "never"]
    command += [f"{name}={value}" for name, value in keys.items()]
    began = time.monotonic()
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        environment = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", **os.environ, **variant.environment}
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {"seconds": time.monotonic() - began, "metrics": run["metrics"], "details": run["loader"]["details"]}


def row(name: str, result: Mapping[str, Any]) -> str:
    """A row of the table."""
    metrics, packing = result["metrics"], result["details"]["packing"]
    allocated, reserved = ((metrics[f"peak_{kind}_bytes"] or 0) / 2**30 for kind in ("allocated", "reserved"))
    share = metrics["real_tokens_per_second"] / metrics["padded_tokens_per_second"]
    kernel = packing["attention"] or result["details"]["got"]["attn_implementation"]
    return (
        f"| {name} | {metrics['real_tokens_per_second']:,.0f} | {share:.0%} | {allocated:.2f} | {reserved:.2f} | "
        f"{kernel} | {result['seconds']:.0f} |"
    )


def compare_packing(options: argparse.Namespace) -> None:
    """Measure each variant in turn; print the table, keep the numbers in results.json."""
    folder = Path(options.output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    options.data = folder / "chats.jsonl"
    tokens = (options.warm_up + options.steps) * max(variant.batch for variant in VARIANTS.values())
    write_chats(
        options.data,
        num_rows=tokens * options.max_seq_length // MEAN_TOKENS,
        max_tokens=options.max_seq_length,
    )
    results: dict[str, Any] = {}
    print("| run | real tokens/s | real share | peak GiB | reserved GiB | attention | wall s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.variants:
        run_folder = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
        try:
            results[name] = measure(VARIANTS[name], options, run_folder)
        except subprocess.CalledProcessError:
            lines = run_folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"| {name} | failed |", *lines[-15:], sep="\n", flush=True)
            continue
        print(row(name, results[name]), flush=True)
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the suite."""
    parser.add_argument("--model", required=True, help="a checkpoint; script/make_tiny_model.py makes random ones")
    parser.add_argument("--train_args_file", default="train_args/sft/qlora/llama3-8b.json")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--max_seq_length", type=int, default=2048)
    parser.add_argument("--warm_up", type=int, default=4, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", default="output/benchmark-packing")
    parser.set_defaults(suite=compare_packing)


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    options.suite(options)


if __name__ == "__main__":
    main()

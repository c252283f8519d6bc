"""Ways to make training samples of conversations, each measured in a process of its own.

    python script/baselines/data_preparation.py trl --rows ROWS.jsonl --tokenizer PATH --json OUT

`plain`: Jinja rendering and the tokenizer's own batched encoding with offsets, without masks and with nothing kept: the
least that exact tokens cost. `apply_chat_template`: row by row, as most scripts do. `firefly`: turn by turn, with a
hand-written template, as Firefly's dataset does. `trl`: SFTTrainer's own preparation, with reading, masks and packing.
`lampyris`: this project's, with the same. Rows are JSON lines with `messages`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BATCH_SIZE = 1000
MAX_LENGTH = 2048

Seconds = dict[str, float]
"""Of each stage; "total" is what the way takes as a whole."""


@contextmanager
def timed(seconds: Seconds, stage: str) -> Iterator[None]:
    """Add the time of a block to a stage."""
    began = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def read(path: Path) -> list[list[dict[str, str]]]:
    """Read the conversations."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["messages"] for line in file]


def load_tokenizer(options: argparse.Namespace) -> Any:
    """Load the tokenizer with transformers alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(options.tokenizer)


def prepare_plain(options: argparse.Namespace) -> Callable[[], Seconds]:
    """Batch by batch; what is made is dropped."""
    from transformers.utils.chat_template_utils import render_jinja_template

    tokenizer, rows = load_tokenizer(options), read(options.rows)

    def run() -> Seconds:
        seconds: Seconds = {}
        for start in range(0, len(rows), BATCH_SIZE):
            with timed(seconds, "rendering"):
                texts, _ = render_jinja_template(
                    conversations=rows[start : start + BATCH_SIZE],
                    chat_template=tokenizer.chat_template,
                    **tokenizer.special_tokens_map,
                )
            with timed(seconds, "encoding"):
                tokenizer(
                    texts,
                    add_special_tokens=False,
                    return_attention_mask=False,
                    return_offsets_mapping=True,
                    verbose=False,
                )
        return {**seconds, "total": sum(seconds.values())}

    return run


def prepare_by_rows(options: argparse.Namespace) -> Callable[[], Seconds]:
    """`apply_chat_template`, one conversation after the other; no masks."""
    tokenizer, rows = load_tokenizer(options), read(options.rows)

    def run() -> Seconds:
        seconds: Seconds = {}
        with timed(seconds, "total"):
            for row in rows:
                tokenizer.apply_chat_template(row, return_dict=False)
        return seconds

    return run


def prepare_as_firefly(options: argparse.Namespace) -> Callable[[], Seconds]:
    """Each turn is formatted and encoded on its own; the answers are the target. Firefly does this while it trains."""
    tokenizer, rows = load_tokenizer(options), read(options.rows)
    formats = {
        "system": "<|im_start|>system\n{}<|im_end|>\n",
        "user": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        "assistant": "{}<|im_end|>\n",
    }

    def encode(row: list[dict[str, str]]) -> dict[str, list[int]]:
        input_ids: list[int] = []
        target_mask: list[int] = []
        for message in row:
            text = formats[message["role"]].format(message["content"].strip())
            ids = tokenizer.encode(text, add_special_tokens=False)
            input_ids += ids
            target_mask += [int(message["role"] == "assistant")] * len(ids)
        return {"input_ids": input_ids[:MAX_LENGTH], "target_mask": target_mask[:MAX_LENGTH]}

    def run() -> Seconds:
        seconds: Seconds = {}
        with timed(seconds, "total"):
            for row in rows:
                encode(row)
        return seconds

    return run


def prepare_with_trl(options: argparse.Namespace) -> Callable[[], Seconds]:
    """SFTTrainer with `assistant_only_loss` and packing, around a model of one tiny layer that is never run."""
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    class TimedTrainer(SFTTrainer):
        """Overrides `_prepare_dataset` alone, to time it."""

        def _prepare_dataset(self, *arguments: Any, **keywords: Any) -> Any:
            with timed(seconds, "maps and packing"):
                return super()._prepare_dataset(*arguments, **keywords)

    tokenizer = load_tokenizer(options)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    seconds: Seconds = {}

    def run() -> Seconds:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            with timed(seconds, "reading"):
                rows = load_dataset("json", data_files=str(options.rows), split="train", cache_dir=folder)
            arguments = SFTConfig(
                output_dir=folder,
                assistant_only_loss=True,
                packing=True,
                max_length=MAX_LENGTH,
                dataset_num_proc=options.num_proc,
                use_cpu=True,
                bf16=False,
                report_to=[],
            )
            TimedTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
        return {**seconds, "total": sum(seconds.values())}

    return run


def prepare_with_lampyris(options: argparse.Namespace) -> Callable[[], Seconds]:
    """`prepare_data` as a run calls it, with its cache in a new folder, and packing; then its stages one by one."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from component.pipeline.data_timing import PreparationTiming

    timing = PreparationTiming(options.rows, options.tokenizer, max_seq_length=MAX_LENGTH)

    def run() -> Seconds:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            return timing.time_all(Path(folder)) if not options.stages else timing.time_stages()

    return run


WAYS = {
    "plain": prepare_plain,
    "apply_chat_template": prepare_by_rows,
    "firefly": prepare_as_firefly,
    "trl": prepare_with_trl,
    "lampyris": prepare_with_lampyris,
}


def memory_bytes(field: str) -> int:
    """`VmRSS` or `VmHWM`, the most so far, of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def main() -> None:
    """Measure one way, once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="folder for caches; the system's by default")
    parser.add_argument("--one_core", action="store_true")
    parser.add_argument("--num_proc", type=int, default=1, help="processes of `trl`")
    parser.add_argument("--stages", action="store_true", help="of `lampyris`: each stage on its own")
    options = parser.parse_args()
    if options.one_core:  # before any library counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    run = WAYS[options.way](options)
    before, cpu = memory_bytes("VmRSS"), sum(os.times()[:4])
    seconds = run()
    # Each worker process of `trl` may have as much as the largest of them.
    workers = options.num_proc * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    result = {
        "seconds": seconds,
        "cpu_seconds": sum(os.times()[:4]) - cpu,
        "peak_bytes": memory_bytes("VmHWM") + (workers if options.num_proc > 1 else 0),
        "bytes_before": before,
    }
    options.json.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The files of a case: a checkpoint with random weights, and rows that fill its length."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from component.pipeline.benchmark import checkpoint
from component.pipeline.benchmark.case import file_name
from component.pipeline.benchmark.locked_file import locked
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, Case

MAX_POSITIONS = 32768
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")
#: Words in a sample that is to be packed, at most and at least.
PACKED_WORDS = (40, 400)


def write_checkpoint(folder: Path, shape: str) -> Path:
    """Write a random checkpoint of a shape, made on the GPU where there is one, unless it is there already.

    A process that needs one which another is writing waits for it.
    """
    target = folder / file_name(shape)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if not checkpoint.is_complete(target):
            checkpoint.write_checkpoint(target, {**CASE_SHAPES[shape], "max_position_embeddings": MAX_POSITIONS})
    return target


def write_rows(folder: Path, case: Case, *, num_steps: int) -> Path:
    """Write rows for so many steps: as long as the limit or longer, or short ones that are packed."""
    keys, generator = case.settings(), random.Random(0)
    task = str(keys.get("task_type", "sft"))
    num_rows = num_steps * case.rows * int(keys["gradient_accumulation_steps"])
    if keys.get("packing"):
        num_rows = num_rows * case.length // PACKED_WORDS[0]

    def text() -> str:
        """Random words of the case's length."""
        words = generator.randint(*PACKED_WORDS) if keys.get("packing") else case.length
        return " ".join(generator.choices(WORDS, k=words))

    path = folder / f"{task}-{case.length}-{num_rows}{'-packed' if keys.get('packing') else ''}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            file.write(json.dumps(_row(task, text(), text(), is_good=number % 2 == 0)) + "\n")
    return path


def _row(task: str, answer: str, other: str, *, is_good: bool) -> dict[str, Any]:
    if task == "kto":
        return {"prompt": "Count.", "completion": answer, "label": is_good}
    if task in ("dpo", "orpo", "reward"):
        return {"prompt": "Count.", "chosen": answer, "rejected": other}
    return {"conversation": [{"human": "Count.", "assistant": answer}]}

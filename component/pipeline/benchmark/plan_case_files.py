"""The files of a case: a checkpoint with random weights, and rows that fill its length."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from component.models.tiny_tokenizer import build_tokenizer, read_texts
from component.pipeline.benchmark.plan_cases import CASE_SHAPES, Case

TEXTS = Path(__file__).resolve().parents[3] / "data/demo/pretrain.jsonl"
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")
#: Words in a sample that is to be packed, at most and at least.
PACKED_WORDS = (40, 400)


def write_checkpoint(folder: Path, shape: str) -> Path:
    """Write a random checkpoint of a shape, made on the GPU where there is one, unless it is there already."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    target = folder / "".join(letter if letter.isalnum() else "-" for letter in shape)
    if (target / "tokenizer.json").is_file():
        return target
    sizes = dict(CASE_SHAPES[shape])
    config = CONFIG_MAPPING[sizes.pop("model_type")](**sizes, max_position_embeddings=32768)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    tokenizer = build_tokenizer(read_texts([TEXTS]), vocab_size=1024, model_max_length=32768)
    for name in ("bos", "eos", "pad"):
        setattr(model.config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
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

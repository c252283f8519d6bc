"""The plainest QLoRA loop of each loader, to hold train.py against: no trainer and no data pipeline.

    python script/baselines/bare_loop.py --train_args_file settings.json --warm_up 2

`use_unsloth: false` is the recipe of the QLoRA paper's code and of Firefly: transformers, PEFT's
prepare_model_for_kbit_training (embeddings, norms and head in float32), reentrant checkpointing, rows in random order,
each padded to the longest of its batch. Otherwise it is what Unsloth's own notebooks do before they hand over to a
trainer, with the same optimizer. `cells`, a list of [max_seq_length, rows of a micro-batch], measures several sizes
with one model.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from component.pipeline.benchmark.baseline import IGNORED, Chat, Meter, peaks, read_chats, run_baseline

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CPU_LEARNING_RATE, GRADIENT_NORM = 2e-4, 1.0


def load_vanilla(settings: Mapping[str, Any], dtype: Any, device: str) -> Any:
    """Load with transformers, PEFT and bitsandbytes."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    is_quantized, recomputes = settings["train_mode"] == "qlora", bool(settings["gradient_checkpointing"])
    model = AutoModelForCausalLM.from_pretrained(
        settings["model_name_or_path"],
        dtype=dtype if device == "cuda" else torch.float32,
        quantization_config=quantization if is_quantized else None,
        device_map={"": 0 if device == "cuda" else "cpu"},
    )
    if is_quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recomputes)
    elif recomputes:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    lora = LoraConfig(
        r=settings["lora_rank"], lora_alpha=settings["lora_alpha"], lora_dropout=settings["lora_dropout"],
        target_modules=LORA_TARGETS, task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, lora)


def load_unsloth(settings: Mapping[str, Any], dtype: Any, max_seq_length: int) -> Any:
    """Load with Unsloth, its own checkpointing."""
    import unsloth

    model, _ = unsloth.FastLanguageModel.from_pretrained(
        settings["model_name_or_path"],
        max_seq_length=max_seq_length,
        dtype=dtype,
        load_in_4bit=settings["train_mode"] == "qlora",
        use_exact_model_name=True,
        device_map={"": 0},
    )
    return unsloth.FastLanguageModel.get_peft_model(
        model,
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        bias="none",
        target_modules=LORA_TARGETS,
        use_gradient_checkpointing="unsloth" if settings["gradient_checkpointing"] else False,
    )


def collate(chats: Sequence[Chat], pad_token_id: int, device: str) -> dict[str, Any]:
    """A batch, padded to its longest row: input_ids, attention_mask and labels of shape (B, L)."""
    import torch

    longest = max(len(chat.input_ids) for chat in chats)

    def padded(rows: Sequence[Sequence[int]], value: int) -> Any:
        """The rows with `value` at their ends."""
        return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)

    return {
        "input_ids": padded([chat.input_ids for chat in chats], pad_token_id),
        "attention_mask": padded([[1] * len(chat.input_ids) for chat in chats], 0),
        "labels": padded([chat.labels for chat in chats], IGNORED),
    }


def batches(chats: Sequence[Chat], rows: int, max_seq_length: int) -> Iterator[list[Chat]]:
    """Batches in random order without end; the same ones each time."""
    generator = random.Random(0)
    while True:
        order = generator.sample(list(chats), len(chats))
        for start in range(0, len(order) - rows + 1, rows):
            yield [
                Chat(chat.prompt, chat.answer, chat.input_ids[:max_seq_length], chat.num_prompt_tokens)
                for chat in order[start : start + rows]
            ]


def build_optimizer(model: Any, settings: Mapping[str, Any], device: str) -> Any:
    """Firefly's optimizer on a GPU, torch's AdamW without one."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if device == "cpu":
        from torch.optim import AdamW

        return AdamW(trained, lr=CPU_LEARNING_RATE)
    import bitsandbytes

    return bitsandbytes.optim.PagedAdamW32bit(trained, lr=settings["learning_rate"])


def train(model: Any, chats: Sequence[Chat], cell: Sequence[int], settings: Mapping[str, Any], meter: Meter) -> None:
    """Train for `max_steps` optimizer steps of `gradient_accumulation_steps` micro-batches.

    Args:
        cell: max_seq_length and rows of a micro-batch.
    """
    import torch

    device, dtype = str(model.device.type), _dtype(settings)
    optimizer = build_optimizer(model, settings, device)
    scaler = torch.amp.GradScaler(enabled=device == "cuda" and dtype == torch.float16)
    pad, accumulation = model.config.pad_token_id or 0, settings["gradient_accumulation_steps"]
    stream = batches(chats, cell[1], cell[0])
    model.train()
    for _ in range(settings["max_steps"]):
        total: Any = 0.0
        for _ in range(accumulation):
            batch = collate(next(stream), pad, device)
            meter.count(batch["attention_mask"].sum(), batch["input_ids"].numel())
            with torch.autocast(device, dtype, enabled=device == "cuda"):
                loss = model(**batch, use_cache=False).loss / accumulation
            scaler.scale(loss).backward()
            total = total + loss.detach()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        meter.end_step(total)


def measure(settings: dict[str, Any], warm_up: int, first_step: Path) -> dict[str, Any]:
    """Load once and train each cell; one that has no memory says so, and the others are measured."""
    import torch

    own_cell = [settings["max_seq_length"], settings["per_device_train_batch_size"]]
    cells = settings.get("cells") or [own_cell]
    device = "cuda" if torch.cuda.is_available() and not settings.get("use_cpu") else "cpu"
    longest = max(length for length, _ in cells)
    torch.manual_seed(0)
    if settings["use_unsloth"]:
        model = load_unsloth(settings, _dtype(settings), longest)
    else:
        model = load_vanilla(settings, _dtype(settings), device)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings["model_name_or_path"])
    chats = read_chats(Path(settings["train_file"]), tokenizer, longest)
    attention = model.config._attn_implementation
    if not settings.get("cells"):
        return {**_measure_cell(model, chats, own_cell, settings, Meter(warm_up, first_step)), "attention": attention}
    return {
        "attention": attention,
        "cells": {
            f"{cell[0]} x {cell[1]}": _try_cell(model, chats, cell, settings, Meter(warm_up, first_step))
            for cell in cells
        },
        **peaks(),
    }


def _measure_cell(
    model: Any, chats: Sequence[Chat], cell: Sequence[int], settings: Mapping[str, Any], meter: Meter
) -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    train(model, chats, cell, settings, meter)
    return meter.result()


def _try_cell(
    model: Any, chats: Sequence[Chat], cell: Sequence[int], settings: Mapping[str, Any], meter: Meter
) -> dict[str, Any]:
    import torch

    try:
        return {"status": "done", **_measure_cell(model, chats, cell, settings, meter)}
    except torch.OutOfMemoryError:
        model.zero_grad(set_to_none=True)
        return {"status": "out of memory"}


def _dtype(settings: Mapping[str, Any]) -> Any:
    import torch

    return torch.float16 if settings.get("fp16") else torch.bfloat16


if __name__ == "__main__":
    sys.exit(run_baseline(__doc__.splitlines()[0], measure))

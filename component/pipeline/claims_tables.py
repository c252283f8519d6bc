"""The planner's tables of docs/claims.md, against which published numbers are held; its text is written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from component.config.load import load_config
from component.pipeline.plan_run import PlannedRun, plan_config
from component.planning.gpus import GPUS
from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.plan import judge, plan
from component.planning.shape import read_shape

GB, GIB = 1e9, 2**30
LLAMA3_8B, LLAMA2_7B = "NousResearch/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-2-7b-chat-hf"
#: Matrix products with the weights alone, two FLOPs for each: forward, and backward to the input of each layer. A
#: frozen weight has no gradient of its own, and nothing is computed twice.
FLOPS_PER_PARAMETER = 4
#: What a large bf16 product reached on one H200; the datasheet's figure is beyond all of them.
MEASURED_H200_FLOPS = 790e12
#: Alpaca has 52,002 rows; 999 of a later edition have 162 tokens in the mean, by Llama 3's tokenizer, template aside.
ALPACA_ROWS, ALPACA_TOKENS = 52_002, 162
CARDS = ("t4", "v100", "a100-80", "h200")
#: Model, card, tokens and rows of a micro-batch: those that were published for, and ours.
COMPARED_RUNS = (
    (LLAMA3_8B, "v100", 1024, 1),
    (LLAMA3_8B, "v100", 2048, 4),
    ("Qwen/Qwen1.5-7B-Chat", "v100", 1024, 1),
    ("Qwen/Qwen1.5-7B-Chat", "v100", 2048, 4),
    (LLAMA2_7B, "a100-80", 2048, 4),
    ("mistralai/Mistral-7B-v0.3", "a100-80", 2048, 4),
    (LLAMA3_8B, "h200", 1024, 1),
    (LLAMA3_8B, "h200", 2048, 4),
)
#: Firefly's: QLoRA on all linear layers; embeddings, norms and head in float32, as PEFT's preparation leaves them.
RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "train_mode": "qlora",
        "lora_rank": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "gradient_checkpointing": True,
        "optim": "paged_adamw_32bit",
        "gradient_accumulation_steps": 16,
        "per_device_train_batch_size": 1,
        "max_seq_length": 1024,
    }
)
PLAIN: Mapping[str, Any] = MappingProxyType({"dtype": "float32", "use_unsloth": False})
UNSLOTH: Mapping[str, Any] = MappingProxyType({"use_unsloth": "require"})
#: The least of Unsloth's notebooks: rank 16, no dropout, 8-bit states.
SMALL: Mapping[str, Any] = MappingProxyType(
    {**UNSLOTH, "lora_rank": 16, "lora_alpha": 16, "lora_dropout": 0.0, "optim": "adamw_8bit"}
)


def planned(model: str, gpu: str, **keys: Any) -> PlannedRun:
    """Plan Firefly's recipe, changed by some keys, on a card; without Unsloth with scores for all tokens at once."""
    places = {"model_name_or_path": model, "train_file": "-", "output_dir": "-"}
    run = plan_config(load_config({**RECIPE, **places, **keys}), gpu)
    made = run.plan
    if made.workload.loader == "unsloth":
        return run
    whole = replace(made.workload, loss_chunk_tokens=None)
    return replace(run, plan=plan(whole, made.gpu, micro_batches=made.micro_batches))


def num_parameters(model: str) -> int:
    """Parameters of a model that is known offline."""
    shape = read_shape(KNOWN_CONFIGS[model])
    assert shape is not None
    return shape.num_parameters


def ceiling_tokens_per_second(flops: float) -> float:
    """Tokens of a frozen Llama-3-8B with adapters that so many FLOP/s can train, and nothing else took any time."""
    return flops / (FLOPS_PER_PARAMETER * num_parameters(LLAMA3_8B))


def _tokens_per_second(run: PlannedRun) -> float:
    assert run.plan.time is not None
    return run.plan.time.tokens_per_second


def _ceilings() -> Iterator[str]:
    yield "| card | TFLOP/s | ceiling, tokens/s | plain recipe, tokens/s | Unsloth, tokens/s | at most, times plain |"
    yield "|---|---|---|---|---|---|"
    rows = {GPUS[name].title: (name, GPUS[name].peak_flops) for name in CARDS}
    rows["H200 141 GB, as measured"] = ("h200", MEASURED_H200_FLOPS)
    for title, (name, peak) in rows.items():
        sizes = {"max_seq_length": 2048, "per_device_train_batch_size": 4}
        plain, fast = (_tokens_per_second(planned(LLAMA3_8B, name, **keys, **sizes)) for keys in (PLAIN, UNSLOTH))
        ceiling = ceiling_tokens_per_second(peak or 0.0)
        yield (
            f"| {title} | {(peak or 0.0) / 1e12:,.1f} | {ceiling:,.0f} | {plain:,.0f} | {fast:,.0f} | "
            f"{ceiling / plain:.1f} |"
        )


def _alpaca() -> Iterator[str]:
    yield "| card | at the ceiling | Unsloth | plain recipe | plain recipe, each row padded to 2,048 |"
    yield "|---|---|---|---|---|"
    tokens = ALPACA_ROWS * ALPACA_TOKENS
    for name in CARDS:
        sizes = {"max_seq_length": 2048, "per_device_train_batch_size": 4}
        plain, fast = (_tokens_per_second(planned(LLAMA3_8B, name, **keys, **sizes)) for keys in (PLAIN, UNSLOTH))
        speeds = (ceiling_tokens_per_second(GPUS[name].peak_flops or 0.0), fast, plain)
        hours = [tokens / speed / 3600 for speed in speeds]
        hours.append(ALPACA_ROWS * 2048 / plain / 3600)
        yield f"| {GPUS[name].title} | {' | '.join(f'{value:,.1f} h' for value in hours)} |"


def _firefly() -> Iterator[str]:
    yield "| model | card | rows | speed | time | memory | Unsloth, GB |"
    yield "|---|---|---|---|---|---|---|"
    for model, name, length, batch in COMPARED_RUNS:
        sizes = {"max_seq_length": length, "per_device_train_batch_size": batch}
        plain, fast = (planned(model, name, **keys, **sizes) for keys in (PLAIN, UNSLOTH))
        speed = _tokens_per_second(fast) / _tokens_per_second(plain)
        memory = fast.plan.memory.reserved / plain.plan.memory.reserved
        yield (
            f"| {_short(model)} | {GPUS[name].title} | {length:,} x {batch} | {speed - 1:+.1%} | "
            f"{1 / speed - 1:+.1%} | {memory - 1:+.1%} | {fast.plan.memory.reserved / GB:.2f} |"
        )


def _memory() -> Iterator[str]:
    yield "| model | parameters, billions | weights alone, GB | allocated, GB | reserved, GB | smallest card |"
    yield "|---|---|---|---|---|---|"
    models = (LLAMA2_7B, LLAMA3_8B, "meta-llama/Llama-2-13b-chat-hf", "meta-llama/Llama-2-70b-chat-hf",
              "meta-llama/Llama-3.1-70B-Instruct")  # fmt: skip
    for model in models:
        run = planned(model, "h200", **SMALL)
        memory = run.plan.memory
        weights = sum(part.num_bytes for part in memory.parts if part.name in ("quantized weights", "16-bit weights"))
        cells = (num_parameters(model), weights, memory.allocated, memory.reserved)
        numbers = " | ".join(f"{value / GB:.2f}" for value in cells)
        yield f"| {_short(model)} | {numbers} | {_smallest_card(run)} |"


def _full() -> Iterator[str]:
    yield "| model | weights and gradients | adamw_8bit | paged_adamw_8bit | in 24 | in 48 | float32 masters, AdamW |"
    yield "|---|---|---|---|---|---|---|"
    models = ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", LLAMA2_7B, LLAMA3_8B,
              "meta-llama/Llama-2-13b-chat-hf")  # fmt: skip
    for model in models:
        on_card, paged, masters = (
            planned(model, "a6000", train_mode="full", gradient_accumulation_steps=1, dtype=dtype, optim=optim).plan
            for dtype, optim in (
                ("bfloat16", "adamw_8bit"), ("bfloat16", "paged_adamw_8bit"), ("auto", "adamw_torch_fused"),
            )
        )  # fmt: skip
        fits = " | ".join(judge(paged.memory, GPUS[name]) for name in ("3090", "a6000"))
        first, second, third = (f"{plan.memory.allocated / GIB:.1f}" for plan in (on_card, paged, masters))
        least = 4 * num_parameters(model) / GIB
        yield f"| {_short(model)} | {least:.1f} | {first} | {second} | {fits} | {third} |"


def _smallest_card(run: PlannedRun) -> str:
    cards = sorted(GPUS.values(), key=lambda gpu: gpu.memory_bytes)
    fitting = next((gpu for gpu in cards if judge(run.plan.memory, gpu) == "fits"), None)
    return fitting.title if fitting else "none"


def _short(model: str) -> str:
    return model.rpartition("/")[2]


CLAIMS_TABLES: Mapping[str, Callable[[], Iterator[str]]] = MappingProxyType(
    {"ceilings": _ceilings, "alpaca": _alpaca, "firefly": _firefly, "memory": _memory, "full": _full}
)

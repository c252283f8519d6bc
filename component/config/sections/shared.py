"""Keys that several sections read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from component.config.keys import LANGUAGE_MODEL_TASKS, MAX_SEED, key


@dataclass(frozen=True)
class TaskKeys:
    """What is trained and how; shared by the sections that depend on it."""

    task_type: str = key("sft", "The training type.")
    train_mode: Literal["full", "lora", "qlora"] = key(
        "qlora", "All parameters, a LoRA adapter on 16-bit weights, or a LoRA adapter on quantized weights."
    )
    seed: int = key(42, "Seed of adapter initialisation, data order, splits and dropout.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class SequenceKeys:
    """The length limit, shared by data and model."""

    max_seq_length: int = key(2048, "Longest sample in tokens.", above=0)


@dataclass(frozen=True)
class CompletionKeys:
    """How long sampled completions may be, shared by the data, whose prompts leave room for them, and grpo."""

    max_completion_length: int = key(
        512,
        "Longest sampled completion in tokens; a prompt may have max_seq_length less this.",
        tasks=("grpo",),
        above=0,
    )


@dataclass(frozen=True)
class CacheKeys:
    """Where a run keeps what it need not make again, shared by the data and the model."""

    cache_dir: str | None = key(
        None,
        "Folder in which prepared rows and quantized weights are kept, so that they are made once.",
        path=True,
        cosmetic=True,
        default_note="lampyris in the user's cache folder",
    )
    cache_max_gib: float = key(
        50.0,
        "Size at which those that were not used for longest are removed, in GiB, of prepared rows and of quantized "
        "weights each; those in use stay.",
        minimum=0,
        cosmetic=True,
    )


@dataclass(frozen=True)
class PackingKeys:
    """Whether rows hold several samples, shared by the model, whose attention must suit, and training."""

    packing: bool | Literal["auto"] = key(
        False,
        "Fill rows of max_seq_length tokens with several samples that do not see each other; each row counts as one in "
        "batch sizes, so a step learns from more samples. auto: where the model keeps them apart, true: or stop. "
        "Beside other keys at auto, rows stay unpacked where full ones do not fit the device, and no speed decides: on "
        "a CPU try both. "
        "Evaluation is never packed.",
        tasks=LANGUAGE_MODEL_TASKS,
    )


@dataclass(frozen=True)
class PrecisionKeys:
    """The number format of training, shared by model and training arguments."""

    bf16: bool | None = key(None, "Train in bfloat16.", default_note="where the hardware is fast at it")
    fp16: bool | None = key(
        None, "Train in float16 with loss scaling; becomes float32 on a CPU.", default_note="on a GPU without bfloat16"
    )
    gradient_checkpointing: bool | Literal["unsloth", "auto"] = key(
        True,
        "Recompute activations in the backward pass to save memory, as the loader does it; unsloth: as Unsloth does, "
        "which keeps them in main memory, and as with true where the loader is another; auto: of as few layers as the "
        "memory of the device asks for.",
        memory=True,
    )


@dataclass(frozen=True)
class LossMemoryKeys:
    """How much of the loss exists at once, shared by the model, whose loader may compute it, and training."""

    loss_chunk_tokens: int | None = key(
        None,
        "Tokens whose scores over the vocabulary exist at once in the loss; the result is the same, and memory less "
        "with fewer. Tokens that are not learned have no scores.",
        tasks=LANGUAGE_MODEL_TASKS,
        above=0,
        default_note="1024 with the vanilla loader; Unsloth sizes its own parts",
    )


@dataclass(frozen=True)
class ShardingKeys:
    """Who spreads a model over processes, shared by the model, whose loader must allow it, and training."""

    deepspeed: str | None = key(None, "DeepSpeed config file.", path=True)
    fsdp: str | None = key(None, "Fully Sharded Data Parallel options, as transformers takes them.")

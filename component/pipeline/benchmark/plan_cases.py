"""The configs that the planner's predictions are held against: shapes with random weights, and keys of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from component.planning.known_shapes import KNOWN_CONFIGS

_LLAMA3_8B = KNOWN_CONFIGS["NousResearch/Meta-Llama-3-8B-Instruct"]
_SMALL = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16}
_TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}

#: Name -> sizes as config.json has them. Where every layer costs alike, fewer of them measure as much in less time.
CASE_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**_LLAMA3_8B, **_TINY, "num_key_value_heads": 2, "vocab_size": 1024},
    "llama 0.3b": {**_LLAMA3_8B, **_SMALL, "num_key_value_heads": 4, "vocab_size": 32000},
    "qwen2.5 0.5b": KNOWN_CONFIGS["Qwen/Qwen2.5-0.5B"],
    "llama3.2 1b": KNOWN_CONFIGS["meta-llama/Llama-3.2-1B-Instruct"],
    "llama3.2 3b": KNOWN_CONFIGS["meta-llama/Llama-3.2-3B-Instruct"],
    "llama3 8b, 6 layers": {**_LLAMA3_8B, "num_hidden_layers": 6},
    # Of random weights as wide as usual, the MLP's activations are outliers to LLM.int8() in nearly every column.
    "llama3 8b, 6 layers, few outliers": {**_LLAMA3_8B, "num_hidden_layers": 6, "initializer_range": 0.005},
    "qwen3 8b, 4 layers": {**KNOWN_CONFIGS["Qwen/Qwen3-8B"], "num_hidden_layers": 4},
    "llama2 13b, 4 layers": {**KNOWN_CONFIGS["meta-llama/Llama-2-13b-chat-hf"], "num_hidden_layers": 4},
    "llama3 8b": _LLAMA3_8B,
}


@dataclass(frozen=True)
class Case:
    """A config.

    Attributes:
        shape: a key of CASE_SHAPES.
        loader: "vanilla" or "unsloth".
        mode: train_mode, or int8 for qlora with 8-bit weights.
        is_held_out: no constant of the planner was fitted to it.
        keys: others than those that the fields give.
        cap_gib: memory that its run may take, CUDA's own included; None for all of the card's.
    """

    shape: str
    loader: str
    mode: str
    length: int
    rows: int
    is_held_out: bool
    keys: Mapping[str, Any] = field(default_factory=dict)
    cap_gib: float | None = None

    @property
    def name(self) -> str:
        """For tables and as a key of the results."""
        return self.config if self.cap_gib is None else f"{self.config}, under {self.cap_gib:.2f} GiB"

    @property
    def config(self) -> str:
        """Its name, whatever the cap."""
        others = [f"{key}={value}" for key, value in self.keys.items()]
        return ", ".join([self.loader, self.shape, self.mode, f"{self.length} x {self.rows}", *others])

    def identity(self) -> dict[str, Any]:
        """All that its result depends on, the machine and the code aside."""
        return {"shape": self.shape, "settings": self.settings()}

    def settings(self) -> dict[str, Any]:
        """Keys of a train_args file, files and folders aside."""
        is_int8 = self.mode == "int8"
        return {
            "use_unsloth": "require" if self.loader == "unsloth" else False,
            "train_mode": "qlora" if is_int8 else self.mode,
            **({"quantization": "int8"} if is_int8 else {}),
            **({} if self.mode == "full" else {"lora_rank": 64}),
            "optim": "adamw_torch_fused" if self.mode in ("full", "lora") else "paged_adamw_32bit",
            "max_seq_length": self.length,
            "per_device_train_batch_size": self.rows,
            "gradient_accumulation_steps": 1,
            **({} if self.cap_gib is None else {"max_memory_gib": self.cap_gib}),
            **self.keys,
        }


KEEP = {"gradient_checkpointing": False}
PACKED = {"packing": True}


def _fit(shape: str, loader: str, mode: str, length: int, rows: int, **keys: Any) -> Case:
    return Case(shape, loader, mode, length, rows, is_held_out=False, keys=keys)


def _held_out(shape: str, loader: str, mode: str, length: int, rows: int, **keys: Any) -> Case:
    return Case(shape, loader, mode, length, rows, is_held_out=True, keys=keys)


#: What a term of the planner was found on, or the host's time taken from, is no longer held out.
CASES: tuple[Case, ...] = (
    _fit("llama 0.3b", "vanilla", "full", 1024, 8),
    _held_out("llama 0.3b", "vanilla", "full", 512, 16, **KEEP),
    _fit("qwen2.5 0.5b", "vanilla", "full", 2048, 2, **KEEP, optim="adamw_8bit"),
    _held_out("qwen2.5 0.5b", "vanilla", "full", 1024, 4, optim="paged_adamw_8bit", gradient_accumulation_steps=2),
    _held_out("qwen2.5 0.5b", "vanilla", "full", 512, 2, task_type="dpo"),
    _fit("qwen2.5 0.5b", "vanilla", "qlora", 1024, 4, task_type="kto"),
    _fit("llama3.2 1b", "vanilla", "qlora", 2048, 4, **KEEP),
    _fit("llama3.2 1b", "vanilla", "lora", 2048, 4, **KEEP),
    _fit("llama3.2 1b", "vanilla", "lora", 1024, 2, task_type="dpo"),
    _fit("llama3.2 1b", "vanilla", "qlora", 2048, 4, **KEEP, **PACKED),
    _fit("llama3.2 1b", "vanilla", "full", 1024, 4, optim="adafactor"),
    _held_out("llama3.2 1b", "vanilla", "lora", 1024, 2, task_type="orpo"),
    _held_out("llama3.2 1b", "vanilla", "qlora", 512, 4, **KEEP, task_type="dpo"),
    _held_out("llama3.2 1b", "vanilla", "lora", 1024, 4, task_type="reward"),
    _held_out("llama3.2 3b", "vanilla", "qlora", 1024, 4),
    _held_out("llama3.2 3b", "vanilla", "lora", 2048, 1, **KEEP),
    _fit("llama3 8b, 6 layers", "vanilla", "qlora", 2048, 4),
    _fit("llama3 8b, 6 layers", "vanilla", "int8", 1024, 2, **KEEP),
    _fit("llama3 8b, 6 layers", "vanilla", "lora", 4096, 1, **KEEP),
    _held_out("llama3 8b, 6 layers", "vanilla", "int8", 2048, 2),
    _held_out("llama3 8b, 6 layers, few outliers", "vanilla", "int8", 1024, 2, **KEEP),
    _held_out("llama3 8b, 6 layers, few outliers", "vanilla", "int8", 2048, 2),
    _fit("qwen3 8b, 4 layers", "vanilla", "qlora", 512, 8, **KEEP),
    _held_out("qwen3 8b, 4 layers", "vanilla", "qlora", 2048, 2, **KEEP),
    _held_out("qwen3 8b, 4 layers", "vanilla", "lora", 8192, 1),
    _fit("llama2 13b, 4 layers", "vanilla", "qlora", 2048, 2, **KEEP),
    _held_out("llama2 13b, 4 layers", "vanilla", "lora", 1024, 8),
    _fit("qwen2.5 0.5b", "unsloth", "qlora", 512, 16),
    _fit("qwen2.5 0.5b", "unsloth", "lora", 2048, 8, optim="adamw_8bit"),
    _fit("llama3.2 1b", "unsloth", "qlora", 2048, 4),
    _fit("llama3.2 1b", "unsloth", "lora", 1024, 8, **KEEP),
    _held_out("llama3.2 1b", "unsloth", "qlora", 4096, 4, **KEEP, **PACKED, optim="adamw_torch_fused"),
    _held_out("llama3.2 3b", "unsloth", "qlora", 2048, 4),
    _held_out("llama3.2 3b", "unsloth", "lora", 2048, 2, **KEEP),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 4),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 4, **KEEP),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 4, **PACKED),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 16),
    _held_out("llama3 8b, 6 layers", "unsloth", "qlora", 8192, 2),
    _fit("qwen3 8b, 4 layers", "unsloth", "qlora", 4096, 2, **KEEP),
    _fit("qwen3 8b, 4 layers", "unsloth", "qlora", 2048, 8, **PACKED),
    _fit("llama2 13b, 4 layers", "unsloth", "qlora", 2048, 4),
    _held_out("llama2 13b, 4 layers", "unsloth", "lora", 2048, 4, **KEEP),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 4, **PACKED, checkpoint_skip_layers=3),
    _fit("llama3 8b, 6 layers", "unsloth", "qlora", 2048, 4, **KEEP, **PACKED, dequantize_base=True),
    _held_out("llama3.2 3b", "unsloth", "qlora", 2048, 4, **KEEP, **PACKED, dequantize_base=True),
    _fit("llama3 8b", "unsloth", "qlora", 2048, 2, **PACKED, checkpoint_skip_layers=16),
    _held_out("llama3 8b", "unsloth", "qlora", 2048, 4, **KEEP, **PACKED, dequantize_base=True),
    _held_out("llama3 8b", "unsloth", "qlora", 2048, 4, **PACKED),
    _fit("llama3 8b", "unsloth", "qlora", 1024, 1),
    _held_out("llama3 8b", "vanilla", "qlora", 2048, 2),
)
#: For a CPU: that it runs, not how much it takes.
QUICK_CASES = (
    _fit("tiny", "vanilla", "lora", 64, 2),
    _held_out("tiny", "vanilla", "full", 64, 2, **KEEP),
)

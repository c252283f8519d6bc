"""Sizes of published models, for machines that hold no copy of their config.json and cannot ask the hub.

From the config.json files of the models. component/models/families.py has the list of checkpoints; those that are
missing here are of families that `read_shape` does not know, or not known for certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _sizes(
    model_type: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    vocab: int,
    *,
    tied: bool = False,
    **others: Any,
) -> Mapping[str, Any]:
    sizes = {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }
    return MappingProxyType({**sizes, **others})


_LLAMA2_7B = _sizes("llama", 4096, 11008, 32, 32, 32, 32000)
_LLAMA2_13B = _sizes("llama", 5120, 13824, 40, 40, 40, 32000)
_LLAMA3_8B = _sizes("llama", 4096, 14336, 32, 32, 8, 128256)
_QWEN2_7B = _sizes("qwen2", 3584, 18944, 28, 28, 4, 152064)
_QWEN25_05B = _sizes("qwen2", 896, 4864, 24, 14, 2, 151936, tied=True)
_QWEN3_8B = _sizes("qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128)
_YI_6B = _sizes("llama", 4096, 11008, 32, 32, 4, 64000)
_MISTRAL_7B = _sizes("mistral", 4096, 14336, 32, 32, 8, 32768)
_SMOLLM3 = _sizes("smollm3", 2048, 11008, 36, 16, 4, 128256, tied=True)

#: Positions -> those of KNOWN_CONFIGS that were made for so many. They are no size: a random model of a shape may have
#: others.
_POSITIONS: Mapping[int, tuple[str, ...]] = {
    2048: ("TinyLlama/TinyLlama-1.1B-Chat-v1.0",),
    4096: (
        "meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-13b-chat-hf", "meta-llama/Llama-2-70b-chat-hf",
        "microsoft/Phi-3-mini-4k-instruct", "deepseek-ai/deepseek-llm-7b-chat", "01-ai/Yi-6B-Chat", "01-ai/Yi-6B",
        "01-ai/Yi-34B-Chat", "01-ai/Yi-1.5-6B-Chat", "lmsys/vicuna-7b-v1.5", "lmsys/vicuna-13b-v1.5",
    ),
    8192: (
        "NousResearch/Meta-Llama-3-8B-Instruct", "unsloth/gemma-2b-it", "google/gemma-7b-it", "google/gemma-2-9b-it",
    ),
    16384: ("microsoft/phi-4",),
    32768: (
        "Qwen/Qwen1.5-7B-Chat", "Qwen/Qwen2-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B",
        "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen3-8B-Base",
        "unsloth/mistral-7b-instruct-v0.3", "mistralai/Mistral-7B-v0.3", "HuggingFaceH4/zephyr-7b-beta",
        "mistralai/Mixtral-8x7B-Instruct-v0.1", "google/gemma-3-1b-it", "zai-org/GLM-4-9B-0414",
    ),
    40960: (
        "Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B",
    ),
    65536: ("allenai/Olmo-3-7B-Instruct", "HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolLM3-3B-Base"),
    131072: (
        "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", "unsloth/gpt-oss-20b-BF16",
        "mistralai/Mistral-Nemo-Instruct-2407", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    ),
}  # fmt: skip
#: Id on the hub -> positions that the model was made for.
KNOWN_POSITIONS: Mapping[str, int] = MappingProxyType(
    {name: positions for positions, names in _POSITIONS.items() for name in names}
)
#: Id on the hub -> the sizes that its config.json says, as far as `read_shape` asks.
KNOWN_CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "meta-llama/Llama-2-7b-chat-hf": _LLAMA2_7B,
        "meta-llama/Llama-2-13b-chat-hf": _LLAMA2_13B,
        "meta-llama/Llama-2-70b-chat-hf": _sizes("llama", 8192, 28672, 80, 64, 8, 32000),
        "NousResearch/Meta-Llama-3-8B-Instruct": _LLAMA3_8B,
        "meta-llama/Llama-3.1-8B-Instruct": _LLAMA3_8B,
        "meta-llama/Llama-3.1-8B": _LLAMA3_8B,
        "meta-llama/Llama-3.1-70B-Instruct": _sizes("llama", 8192, 28672, 80, 64, 8, 128256),
        "meta-llama/Llama-3.2-1B-Instruct": _sizes("llama", 2048, 8192, 16, 32, 8, 128256, tied=True),
        "meta-llama/Llama-3.2-3B-Instruct": _sizes("llama", 3072, 8192, 28, 24, 8, 128256, tied=True),
        "Qwen/Qwen1.5-7B-Chat": _sizes("qwen2", 4096, 11008, 32, 32, 32, 151936),
        "Qwen/Qwen2-7B-Instruct": _QWEN2_7B,
        "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_05B,
        "Qwen/Qwen2.5-0.5B": _QWEN25_05B,
        "Qwen/Qwen2.5-7B-Instruct": _QWEN2_7B,
        "Qwen/Qwen2.5-14B-Instruct": _sizes("qwen2", 5120, 13824, 48, 40, 8, 152064),
        "Qwen/Qwen2.5-32B-Instruct": _sizes("qwen2", 5120, 27648, 64, 40, 8, 152064),
        "Qwen/Qwen3-0.6B": _sizes("qwen3", 1024, 3072, 28, 16, 8, 151936, tied=True, head_dim=128),
        "Qwen/Qwen3-4B": _sizes("qwen3", 2560, 9728, 36, 32, 8, 151936, tied=True, head_dim=128),
        "Qwen/Qwen3-8B": _QWEN3_8B,
        "Qwen/Qwen3-8B-Base": _QWEN3_8B,
        "Qwen/Qwen3-14B": _sizes("qwen3", 5120, 17408, 40, 40, 8, 151936, head_dim=128),
        "Qwen/Qwen3-32B": _sizes("qwen3", 5120, 25600, 64, 64, 8, 151936, head_dim=128),
        "Qwen/Qwen3-30B-A3B": _sizes(
            "qwen3_moe", 2048, 6144, 48, 32, 4, 151936,
            head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
        ),
        "unsloth/mistral-7b-instruct-v0.3": _MISTRAL_7B,
        "mistralai/Mistral-7B-v0.3": _MISTRAL_7B,
        "mistralai/Mistral-Nemo-Instruct-2407": _sizes("mistral", 5120, 14336, 40, 32, 8, 131072, head_dim=128),
        "HuggingFaceH4/zephyr-7b-beta": _sizes("mistral", 4096, 14336, 32, 32, 8, 32000),
        "mistralai/Mixtral-8x7B-Instruct-v0.1": _sizes(
            "mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2
        ),
        "unsloth/gemma-2b-it": _sizes("gemma", 2048, 16384, 18, 8, 1, 256000, tied=True, head_dim=256),
        "google/gemma-7b-it": _sizes("gemma", 3072, 24576, 28, 16, 16, 256000, tied=True, head_dim=256),
        "google/gemma-2-9b-it": _sizes("gemma2", 3584, 14336, 42, 16, 8, 256000, tied=True, head_dim=256),
        "google/gemma-3-1b-it": _sizes("gemma3_text", 1152, 6912, 26, 4, 1, 262144, tied=True, head_dim=256),
        "microsoft/Phi-3-mini-4k-instruct": _sizes("phi3", 3072, 8192, 32, 32, 32, 32064),
        "microsoft/phi-4": _sizes("phi3", 5120, 17920, 40, 40, 10, 100352),
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA3_8B,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _QWEN2_7B,
        "deepseek-ai/deepseek-llm-7b-chat": _sizes("llama", 4096, 11008, 30, 32, 32, 102400),
        "01-ai/Yi-6B-Chat": _YI_6B,
        "01-ai/Yi-6B": _YI_6B,
        "01-ai/Yi-34B-Chat": _sizes("llama", 7168, 20480, 60, 56, 8, 64000),
        "01-ai/Yi-1.5-6B-Chat": _YI_6B,
        "lmsys/vicuna-7b-v1.5": _LLAMA2_7B,
        "lmsys/vicuna-13b-v1.5": _LLAMA2_13B,
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _sizes("llama", 2048, 5632, 22, 32, 4, 32000),
        "zai-org/GLM-4-9B-0414": _sizes("glm4", 4096, 13696, 40, 32, 2, 151552, head_dim=128),
        "allenai/Olmo-3-7B-Instruct": _sizes("olmo3", 4096, 11008, 32, 32, 32, 100278),
        "HuggingFaceTB/SmolLM3-3B": _SMOLLM3,
        "HuggingFaceTB/SmolLM3-3B-Base": _SMOLLM3,
        "unsloth/gpt-oss-20b-BF16": _sizes(
            "gpt_oss", 2880, 2880, 24, 64, 8, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4
        ),
    }
)  # fmt: skip

"""The model families that people train: architecture, published checkpoints, chat template and sizes, one table.

The configs in train_args/ and the page docs/families.md are made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """A published model.

    Attributes:
        name: what the files of train_args call it.
        hub_id: its id on the hub, in 16 bit.
        num_billions: billions of parameters, all experts included.
        template: a named chat template; None for the tokenizer's own, or where `is_base` leaves it to plain turns.
        is_base: not trained to chat.
        sft_settings: keys that fine-tuning it on conversations needs.
    """

    name: str
    hub_id: str
    num_billions: float
    template: str | None = None
    is_base: bool = False
    sft_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def template_name(self) -> str:
        """The value of `template_name`.

        Most base models have control tokens of a chat template in their vocabulary that they never saw: an adapter
        cannot teach them, so turns are plain text there.
        """
        return self.template or ("default" if self.is_base else "auto")


@dataclass(frozen=True)
class Family:
    """Models of one architecture and origin.

    Attributes:
        title: for people.
        model_type: of config.json.
        checkpoints: smallest first.
        is_native: whether the pinned transformers has the architecture. A family that is not brings Python code of its
            own: it needs `trust_remote_code`, has no config, and has not been tried here.
        is_gated: whether its licence must be accepted on the hub first.
        note: what else to know.
    """

    title: str
    model_type: str
    checkpoints: tuple[Checkpoint, ...]
    is_native: bool = True
    is_gated: bool = False
    note: str = ""


def _base(name: str, hub_id: str, num_billions: float, template: str | None = None) -> Checkpoint:
    return Checkpoint(name, hub_id, num_billions, template, is_base=True)


_APPEND = {"append_stop_token": True}
_NO_STOP = "its chat template ends no answer, so the EOS token is appended"
_NO_SYSTEM = "its own chat template refuses system messages; the named one puts them before the first question"
_EXPERTS = "experts stay in 16 bit, without an adapter, so qlora needs nearly the memory of lora"
_SEES = "sees too: only the language model is trained"

FAMILIES: tuple[Family, ...] = (
    Family("Llama 2", "llama", (
        Checkpoint("llama2-7b", "meta-llama/Llama-2-7b-chat-hf", 6.7),
        Checkpoint("llama2-13b", "meta-llama/Llama-2-13b-chat-hf", 13.0),
        Checkpoint("llama2-70b", "meta-llama/Llama-2-70b-chat-hf", 69.0),
    ), is_gated=True),
    Family("Llama 3", "llama", (
        Checkpoint("llama3-8b", "NousResearch/Meta-Llama-3-8B-Instruct", 8.0),
    ), note="a copy of Meta's model that asks for no licence"),
    Family("Llama 3.1", "llama", (
        Checkpoint("llama3.1-8b", "meta-llama/Llama-3.1-8B-Instruct", 8.0),
        Checkpoint("llama3.1-70b", "meta-llama/Llama-3.1-70B-Instruct", 70.6),
        _base("llama3.1-8b-base", "meta-llama/Llama-3.1-8B", 8.0),
    ), is_gated=True),
    Family("Llama 3.2", "llama", (
        Checkpoint("llama3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", 1.2),
        Checkpoint("llama3.2-3b", "meta-llama/Llama-3.2-3B-Instruct", 3.2),
    ), is_gated=True),
    Family("Qwen 1.5", "qwen2", (Checkpoint("qwen1.5-7b", "Qwen/Qwen1.5-7B-Chat", 7.7),)),
    Family("Qwen 2", "qwen2", (Checkpoint("qwen2-7b", "Qwen/Qwen2-7B-Instruct", 7.6),)),
    Family("Qwen 2.5", "qwen2", (
        Checkpoint("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct", 0.5),
        Checkpoint("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct", 7.6),
        Checkpoint("qwen2.5-14b", "Qwen/Qwen2.5-14B-Instruct", 14.8),
        Checkpoint("qwen2.5-32b", "Qwen/Qwen2.5-32B-Instruct", 32.8),
        _base("qwen2.5-0.5b-base", "Qwen/Qwen2.5-0.5B", 0.5, "chatml"),
    ), note="the base models know ChatML's control tokens"),
    Family("Qwen 3", "qwen3", (
        Checkpoint("qwen3-0.6b", "Qwen/Qwen3-0.6B", 0.6),
        Checkpoint("qwen3-4b", "Qwen/Qwen3-4B", 4.0),
        Checkpoint("qwen3-8b", "Qwen/Qwen3-8B", 8.2),
        Checkpoint("qwen3-14b", "Qwen/Qwen3-14B", 14.8),
        Checkpoint("qwen3-32b", "Qwen/Qwen3-32B", 32.8),
        _base("qwen3-8b-base", "Qwen/Qwen3-8B-Base", 8.2, "chatml"),
    ), note="answers without a reasoning text get an empty think block, as its chat template writes it"),
    Family("Qwen 3 MoE", "qwen3_moe", (Checkpoint("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 30.5),), note=_EXPERTS),
    Family("Qwen 3.5", "qwen3_5", (
        Checkpoint("qwen3.5-4b", "Qwen/Qwen3.5-4B", 4.7),
        Checkpoint("qwen3.5-9b", "Qwen/Qwen3.5-9B", 9.7),
    ), note="sees too: its language model alone is loaded; recurrent layers: rows cannot be packed"),
    Family("Mistral", "mistral", (
        Checkpoint("mistral-7b", "unsloth/mistral-7b-instruct-v0.3", 7.2),
        Checkpoint("mistral-nemo-12b", "mistralai/Mistral-Nemo-Instruct-2407", 12.2),
        Checkpoint("zephyr-7b", "HuggingFaceH4/zephyr-7b-beta", 7.2),
        _base("mistral-7b-base", "mistralai/Mistral-7B-v0.3", 7.2),
    )),
    Family("Ministral 3", "mistral3", (
        Checkpoint("ministral3-8b", "mistralai/Ministral-3-8B-Instruct-2512-BF16", 8.9),
    ), note=f"{_SEES}; the checkpoint without BF16 in its name is in 8 bit, which cannot be trained on"),
    Family("Mixtral", "mixtral", (
        Checkpoint("mixtral-8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7),
    ), note=_EXPERTS),
    Family("Gemma", "gemma", (
        Checkpoint("gemma-2b", "unsloth/gemma-2b-it", 2.5, "gemma"),
        Checkpoint("gemma-7b", "google/gemma-7b-it", 8.5, "gemma"),
    ), is_gated=True, note=f"{_NO_SYSTEM}. The 2b is a copy that asks for no licence"),
    Family("Gemma 2", "gemma2", (
        Checkpoint("gemma2-9b", "google/gemma-2-9b-it", 9.2, "gemma"),
    ), is_gated=True, note=f"{_NO_SYSTEM}. It caps attention scores, which SDPA cannot"),
    Family("Gemma 3", "gemma3_text", (
        Checkpoint("gemma3-1b", "google/gemma-3-1b-it", 1.0),
    ), is_gated=True),
    Family("Gemma 3", "gemma3", (
        Checkpoint("gemma3-4b", "google/gemma-3-4b-it", 4.3),
    ), is_gated=True, note=_SEES),
    Family("Gemma 4", "gemma4", (
        Checkpoint("gemma4-e2b", "google/gemma-4-E2B-it", 5.1),
        Checkpoint("gemma4-e4b", "google/gemma-4-E4B-it", 8.0),
    ), note="sees and hears too: only the language model is trained"),
    Family("Phi 3", "phi3", (Checkpoint("phi3-mini", "microsoft/Phi-3-mini-4k-instruct", 3.8),)),
    Family("Phi 4", "phi3", (Checkpoint("phi4-14b", "microsoft/phi-4", 14.7),)),
    Family("DeepSeek-R1 distilled", "llama", (
        Checkpoint("deepseek-r1-distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8.0),
    ), note="its chat template leaves the reasoning of earlier answers out"),
    Family("DeepSeek-R1 distilled", "qwen2", (
        Checkpoint("deepseek-r1-distill-qwen-7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.6),
    ), note="its chat template leaves the reasoning of earlier answers out"),
    Family("DeepSeek LLM", "llama", (Checkpoint("deepseek-7b", "deepseek-ai/deepseek-llm-7b-chat", 6.9),)),
    Family("Yi", "llama", (
        Checkpoint("yi-6b", "01-ai/Yi-6B-Chat", 6.1),
        Checkpoint("yi-34b", "01-ai/Yi-34B-Chat", 34.4),
        _base("yi-6b-base", "01-ai/Yi-6B", 6.1),
    )),
    Family("Yi 1.5", "llama", (Checkpoint("yi1.5-6b", "01-ai/Yi-1.5-6B-Chat", 6.1),)),
    Family("Vicuna", "llama", (
        Checkpoint("vicuna-7b", "lmsys/vicuna-7b-v1.5", 6.7, "vicuna"),
        Checkpoint("vicuna-13b", "lmsys/vicuna-13b-v1.5", 13.0, "vicuna"),
    ), note="its tokenizer has no chat template"),
    Family("TinyLlama", "llama", (Checkpoint("tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.1),)),
    Family("GLM 4", "glm4", (
        Checkpoint("glm4-9b", "zai-org/GLM-4-9B-0414", 9.4, sft_settings=_APPEND),
    ), note=_NO_STOP),
    Family("GLM 4.7 Flash", "glm4_moe_lite", (
        Checkpoint("glm4.7-flash", "zai-org/GLM-4.7-Flash", 31.2, sft_settings=_APPEND),
    ), note=f"{_NO_STOP}; {_EXPERTS}; the dense layers beside them get no adapter either"),
    Family("OLMo 3", "olmo3", (Checkpoint("olmo3-7b", "allenai/Olmo-3-7B-Instruct", 7.3),)),
    Family("MiniCPM 3", "minicpm3", (Checkpoint("minicpm3-4b", "openbmb/MiniCPM3-4B", 4.1),)),
    Family("BLOOM", "bloom", (
        _base("bloom-560m", "bigscience/bloom-560m", 0.6),
        _base("bloom-7b1", "bigscience/bloom-7b1", 7.1),
    ), note="ALiBi: rows cannot be packed"),
    Family("SmolLM 3", "smollm3", (
        Checkpoint("smollm3-3b", "HuggingFaceTB/SmolLM3-3B", 3.1),
        _base("smollm3-3b-base", "HuggingFaceTB/SmolLM3-3B-Base", 3.1),
    )),
    Family("gpt-oss", "gpt_oss", (
        Checkpoint("gpt-oss-20b", "unsloth/gpt-oss-20b-BF16", 20.9),
    ), note=f"{_EXPERTS}; the original checkpoint is in MXFP4, which cannot be trained on"),
    # Not native: `model_type` and template as their own code has them.
    Family("Qwen", "qwen", (Checkpoint("qwen-7b", "Qwen/Qwen-7B-Chat", 7.7, "qwen"),), is_native=False),
    Family("ChatGLM", "chatglm", (
        Checkpoint("chatglm2-6b", "zai-org/chatglm2-6b", 6.2, "chatglm2"),
        Checkpoint("chatglm3-6b", "zai-org/chatglm3-6b", 6.2, "chatglm3"),
    ), is_native=False),
    Family("InternLM", "internlm", (
        Checkpoint("internlm-7b", "internlm/internlm-chat-7b", 7.3, "internlm"),
    ), is_native=False),
    Family("InternLM 2", "internlm2", (
        Checkpoint("internlm2-7b", "internlm/internlm2-chat-7b", 7.7, "internlm2"),
    ), is_native=False),
    Family("Baichuan", "baichuan", (
        _base("baichuan-7b", "baichuan-inc/Baichuan-7B", 7.0, "baichuan"),
    ), is_native=False),
    Family("Baichuan 2", "baichuan", (
        Checkpoint("baichuan2-7b", "baichuan-inc/Baichuan2-7B-Chat", 7.5, "baichuan2"),
        Checkpoint("baichuan2-13b", "baichuan-inc/Baichuan2-13B-Chat", 13.9, "baichuan2"),
    ), is_native=False),
    Family("MiniCPM", "minicpm", (
        Checkpoint("minicpm-2b", "openbmb/MiniCPM-2B-sft-bf16", 2.7, "minicpm"),
    ), is_native=False),
    Family("Orion", "orion", (Checkpoint("orion-14b", "OrionStarAI/Orion-14B-Chat", 14.5, "orion"),), is_native=False),
    Family("XVERSE", "xverse", (
        Checkpoint("xverse-7b", "xverse/XVERSE-7B-Chat", 7.3, "xverse"),
        Checkpoint("xverse-13b", "xverse/XVERSE-13B-Chat", 13.9, "xverse"),
    ), is_native=False),
    Family("DeepSeek MoE", "deepseek", (
        Checkpoint("deepseek-moe-16b", "deepseek-ai/deepseek-moe-16b-chat", 16.4),
    ), is_native=False),
)  # fmt: skip

#: Largest number of billions of parameters -> settings that differ from the bases; for adapters and for full training.
#: QLoRA (https://arxiv.org/abs/2305.14314, table 9) halves the learning rate from 33B on.
ADAPTER_SIZES: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (10, {}),
    (20, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}),
    (float("inf"), {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "learning_rate": 1e-4}),
)
FULL_SIZES: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (1, {"learning_rate": 2e-5}),
    (2, {}),
    (float("inf"), {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}),
)


def checkpoints(*, is_native: bool = True) -> Iterator[tuple[Family, Checkpoint]]:
    """All checkpoints with their families, native ones or the others."""
    for family in FAMILIES:
        if family.is_native is is_native:
            yield from ((family, checkpoint) for checkpoint in family.checkpoints)


def family_of(hub_id: str) -> str | None:
    """`model_type` of a published checkpoint; None for one that the table lacks."""
    types = {one.hub_id: family.model_type for family in FAMILIES for one in family.checkpoints}
    return types.get(hub_id)


def settings_for_size(num_billions: float, train_mode: str) -> Mapping[str, Any]:
    """Batch and learning rate of next-token training, as they differ from the bases."""
    sizes = FULL_SIZES if train_mode == "full" else ADAPTER_SIZES
    return next(settings for limit, settings in sizes if num_billions <= limit)

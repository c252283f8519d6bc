"""Random models of published architectures in tiny sizes, each stored as its published checkpoints are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: Sizes that most families call alike; those that a family's config does not know are left out.
_COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.08,
    }
)
_LATENT_ATTENTION = {
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "num_key_value_heads": 4,
}  # fmt: skip
_SIGLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}

#: `model_type` of config.json -> the family's own sizes. `text_config` and `vision_config` are those of a
#: vision-language checkpoint; a family with layers of several kinds has one of each.
TINY_FAMILIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {},
        "qwen2": {},
        "qwen3": {},
        "mistral": {},
        "gemma": {},
        "olmo3": {"layer_types": ["sliding_attention", "full_attention"]},
        "phi3": {},
        "glm4": {"partial_rotary_factor": 0.5},
        "smollm3": {"no_rope_layers": [1, 0]},
        # The usual cap, 50, would change nothing at the size of these scores.
        "gemma2": {"layer_types": ["sliding_attention", "full_attention"], "attn_logit_softcapping": 0.1},
        "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
        "minicpm3": {**_LATENT_ATTENTION, "head_dim": None},
        "bloom": {"n_layer": 2, "n_head": 4},
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
        "gpt_oss": {
            "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["sliding_attention", "full_attention"],
        },
        "glm4_moe_lite": {
            **_LATENT_ATTENTION, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
            "mlp_layer_types": ["dense", "sparse"],
        },
        "gemma3": {
            "text_config": {"layer_types": ["sliding_attention", "full_attention"]},
            "vision_config": {**_SIGLIP, "image_size": 28, "patch_size": 14},
            "mm_tokens_per_image": 1,
        },
        "gemma4": {
            "text_config": {
                # The last layer takes the keys and values of the one before it, as the small sizes have it.
                "layer_types": ["sliding_attention", "full_attention", "full_attention"], "num_hidden_layers": 3,
                "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 16, "global_head_dim": 16,
            },
            "vision_config": {**_SIGLIP, "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 64},
            "audio_config": {
                "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 32,
                "subsampling_conv_channels": [8, 4],
            },
        },
        "qwen3_5": {
            "text_config": {
                "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 16,
                "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            },
            "vision_config": {
                "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
                "num_position_embeddings": 16,
            },
        },
        "mistral3": {
            "text_config": {"model_type": "ministral3"},
            "vision_config": {**_SIGLIP, "model_type": "pixtral", "head_dim": 16, "image_size": 28, "patch_size": 14},
        },
    }
)  # fmt: skip


def build_family_config(model_type: str, *, vocab_size: int, token_ids: Mapping[str, int | None]) -> PreTrainedConfig:
    """Build the config of a tiny model.

    Args:
        model_type: a key of TINY_FAMILIES.
        vocab_size: number of its embeddings.
        token_ids: bos_token_id, eos_token_id and pad_token_id.
    """
    from transformers import CONFIG_MAPPING

    own = dict(TINY_FAMILIES[model_type])
    text = dict(own.pop("text_config", {}))
    sizes = {**_COMMON, "vocab_size": vocab_size, "vocab_size_per_layer_input": vocab_size, **token_ids}
    if not text:
        return CONFIG_MAPPING[model_type](**_fitting(model_type, sizes), **own)
    text_type = text.pop("model_type", f"{model_type}_text")
    text_config = {"model_type": text_type, **_fitting(text_type, sizes), **text}
    return CONFIG_MAPPING[model_type](text_config=text_config, **own, **token_ids)


def _fitting(model_type: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that the family's config knows and does not set itself."""
    from transformers import CONFIG_MAPPING

    known, own = CONFIG_MAPPING[model_type]().to_dict(), TINY_FAMILIES.get(model_type, {})
    return {name: value for name, value in sizes.items() if name in known and name not in own}


def build_family_model(config: PreTrainedConfig, *, seed: int) -> PreTrainedModel:
    """Build a model with random weights: the class that checkpoints of its family are published for.

    Args:
        seed: the same seed gives the same weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto = AutoModelForImageTextToText if "vision_config" in config.sub_configs else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto.from_config(config, dtype=torch.float32)

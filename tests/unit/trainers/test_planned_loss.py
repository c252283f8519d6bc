"""What a plan foresees of the loss in parts is what a loaded model of each family shows of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from component.config.errors import UserError
from component.config.load import Config, load_config
from component.models.precision import resolve_precision
from component.models.tiny_families import TINY_FAMILIES, build_family_config
from component.pipeline.plan_inputs import setting_of
from component.planning.shape import FUSED_PROJECTIONS
from component.runtime.hardware import Hardware
from component.trainers.chunked_loss import ChunkedLoss, find_head
from component.trainers.loss_choice import check_smoothing, foresee_whole

GPU = Hardware("cuda", "test GPU", 2**36, 2**36, (8, 0), True, 1)


def load(**values: Any) -> Config:
    return load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o", **values})


def shown(model: Any) -> str | None:
    """Why a loaded model makes all scores at once."""
    head = find_head(model)
    return head if isinstance(head, str) else ChunkedLoss(model, head, chunk_tokens=4).install()


@pytest.mark.parametrize("family", sorted(TINY_FAMILIES.keys() & FUSED_PROJECTIONS.keys()))
def test_families(family: str) -> None:
    config = build_family_config(family, vocab_size=64, token_ids={"pad_token_id": 0})
    foreseen = foresee_whole(load().model, load().adapter, config.to_dict())
    assert (foreseen is None) is (shown(AutoModelForCausalLM.from_config(config)) is None) is (family != "gemma2")


@pytest.mark.parametrize(
    ("settings", "lora", "is_whole"),
    [
        ({}, {}, False),
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"]}, False),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}, True),
        ({"new_tokens": ["<a>"]}, {"trainable_token_indices": {"embed_tokens": [63], "lm_head": [63]}}, True),
    ],
)
def test_heads_with_adapters(settings: dict[str, Any], lora: dict[str, Any], is_whole: bool) -> None:
    config = build_family_config("llama", vocab_size=64, token_ids={"pad_token_id": 0})
    adapted = get_peft_model(
        AutoModelForCausalLM.from_config(config), LoraConfig(**{"target_modules": ["q_proj"], **lora})
    )
    made = load(**settings)
    foreseen = foresee_whole(made.model, made.adapter, config.to_dict())
    assert (foreseen is not None) is (shown(adapted.get_base_model()) is not None) is is_whole


@pytest.mark.parametrize(
    ("settings", "model_config", "chunks"),
    [
        ({}, {}, True),
        ({"use_liger_kernel": True}, {}, False),
        ({"torch_compile": True}, {}, False),
        ({"extra_training_args": {"label_smoothing_factor": 0.1}}, {}, False),
        ({"fsdp": "full_shard"}, {}, False),
        ({}, {"final_logit_softcapping": 30.0}, False),
        ({}, {"final_logit_softcapping": None}, True),
        ({}, {"logits_scaling": 8.0}, False),
    ],
)
def test_what_a_plan_is_made_with(settings: dict[str, Any], model_config: dict[str, Any], chunks: bool) -> None:
    config = load(**settings)
    precision = resolve_precision(config.model, GPU)
    setting = setting_of(config, {"model_type": "llama", **model_config}, GPU, "vanilla", precision)
    assert setting.chunks_loss is chunks


@pytest.mark.parametrize(
    ("family", "takes_count", "reason"),
    [
        ("llama", True, None),
        ("llama", False, "transformers does not smooth the loss of next tokens for this class"),
        ("mixtral", True, "transformers leaves the load balancing of its experts out"),
    ],
)
def test_label_smoothing_is_refused_where_it_would_be_another_loss(
    family: str, takes_count: bool, reason: str | None
) -> None:
    config = build_family_config(family, vocab_size=64, token_ids={"pad_token_id": 0})
    config.output_router_logits = family == "mixtral"
    model = AutoModelForCausalLM.from_config(config)
    trainer = SimpleNamespace(model=model, model_accepts_loss_kwargs=takes_count, label_smoother=object())
    if reason is None:
        check_smoothing(trainer)
        return
    with pytest.raises(UserError, match=f"label_smoothing_factor with {type(model).__name__}: {reason}; drop it"):
        check_smoothing(trainer)

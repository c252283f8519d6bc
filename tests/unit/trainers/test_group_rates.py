"""Learning rates of their own: which parameters get them, and LoRA+ beside PEFT's, step for step."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers.trainer_pt_utils import get_parameter_names

from component.config.errors import UserError
from component.models.tiny import Shape, build_model
from component.trainers.group_rates import GroupRates

SHAPE = Shape(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ROW = torch.arange(5, 25)[None]


def adapted(**changes):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **changes)
    return get_peft_model(build_model(SHAPE, seed=0, token_ids=IDS), config)


def plain_optimizer(model, kind=torch.optim.AdamW, **arguments):
    """Groups as transformers' Trainer makes them."""
    decayed = get_parameter_names(model, [torch.nn.LayerNorm], ["bias", "norm"])
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for name, value in trained if name in decayed], "weight_decay": 0.1},
        {"params": [value for name, value in trained if name not in decayed], "weight_decay": 0.0},
    ]
    return kind([group for group in groups if group["params"]], lr=1e-3, **arguments)


def rates_by_name(optimizer, model) -> dict[str, float]:
    names = {id(value): name for name, value in model.named_parameters()}
    return {names[id(value)]: group["lr"] for group in optimizer.param_groups for value in group["params"]}


def trained(model) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def run(optimizer, model, *, steps: int, schedule=None) -> None:
    for _ in range(steps):
        model(ROW, labels=ROW, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_steps_are_those_of_peft(changes) -> None:
    ours, theirs = adapted(**changes), adapted(**changes)
    optimizer = plain_optimizer(ours)
    GroupRates(lora_b_ratio=16).apply(optimizer, ours)
    reference = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
    )
    run(optimizer, ours, steps=3)
    run(reference, theirs, steps=3)
    for name, value in trained(theirs).items():
        torch.testing.assert_close(trained(ours)[name], value, rtol=0, atol=0)


def test_the_second_matrices_learn_faster_under_the_same_schedule() -> None:
    model = adapted()
    optimizer = plain_optimizer(model)
    GroupRates(lora_b_ratio=16).apply(optimizer, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    run(optimizer, model, steps=1, schedule=schedule)
    rates = rates_by_name(optimizer, model)
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {1e-3 / 2}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {16e-3 / 2}
    assert len(rates) == 4


def test_embeddings_have_a_rate_of_their_own() -> None:
    model = adapted(modules_to_save=["embed_tokens", "lm_head"])
    optimizer = plain_optimizer(model)
    GroupRates(lora_b_ratio=2, embeddings=5e-5).apply(optimizer, model)
    rates = rates_by_name(optimizer, model)
    assert {rate for name, rate in rates.items() if "modules_to_save" in name} == {5e-5}
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {1e-3}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {2e-3}
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
    full = build_model(SHAPE, seed=0, token_ids=IDS)
    optimizer = plain_optimizer(full)
    GroupRates(embeddings=5e-5).apply(optimizer, full)
    slow = {name for name, rate in rates_by_name(optimizer, full).items() if rate == 5e-5}
    assert slow == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_rate_for_embeddings_that_rest_is_refused() -> None:
    model = adapted()
    with pytest.raises(UserError, match="embedding_learning_rate: no embeddings are trained"):
        GroupRates(embeddings=1e-5).apply(plain_optimizer(model), model)


def test_without_rates_an_optimizer_stays_as_it_is() -> None:
    model = adapted()
    optimizer = plain_optimizer(model)
    before = copy.copy(optimizer.param_groups)
    GroupRates().apply(optimizer, model)
    assert all(one is other for one, other in zip(before, optimizer.param_groups, strict=True))


@pytest.mark.parametrize("kind", ["Adafactor", "AdamW8bit", "PagedAdamW8bit", "Lion"])
def test_other_optimizers_follow(kind: str) -> None:
    """A rate of 0 for the embeddings holds them still, whatever the optimizer."""
    import bitsandbytes
    from transformers import Adafactor

    model = adapted(modules_to_save=["embed_tokens"])
    arguments = {"scale_parameter": False, "relative_step": False} if kind == "Adafactor" else {}
    optimizer = plain_optimizer(
        model, Adafactor if kind == "Adafactor" else getattr(bitsandbytes.optim, kind), **arguments
    )
    GroupRates(embeddings=0.0).apply(optimizer, model)
    before = {name: value.detach().clone() for name, value in trained(model).items()}
    run(optimizer, model, steps=2)
    for name, value in trained(model).items():
        assert torch.equal(value, before[name]) == ("embed_tokens" in name), name

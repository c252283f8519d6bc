"""Adapters on a base that they were not made for, and on a model of another kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from component.config.errors import UserError
from component.models.inference import load_for_inference
from component.models.tiny import Shape, make_tiny_model


@pytest.fixture
def adapter_of_tiny_model(load, tmp_path: Path) -> Path:
    """The adapter of a Llama of two layers, 64 wide, with an untied head."""
    load(train_mode="lora").model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def moved_to(adapter_of_tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make another base and name it as that of the adapter."""

    def move(model_type: str = "llama", **shape: int) -> Path:
        llama = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        values = {**llama, **shape} if model_type == "llama" else {}
        text = tmp_path / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog\n" * 4, encoding="utf-8")
        base = tmp_path / "base"
        make_tiny_model(base, shape=Shape(**values), seed=0, texts=[text], model_type=model_type)
        file = adapter_of_tiny_model / "adapter_config.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**content, "base_model_name_or_path": str(base)}), encoding="utf-8")
        return base

    return move


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"hidden_size": 32}, "size mismatch for base_model.model.model.layers.0.self_attn.q_proj.lora_A.default"),
        ({"num_hidden_layers": 1}, "has weights that there is no place for (14), base_model.model.model.layers.1."),
        ({"num_hidden_layers": 3}, "lacks weights of layers that its adapter_config.json names"),
        ({"model_type": "bloom"}, "Target modules {"),
    ],
    ids=["width", "fewer layers", "more layers", "family"],
)
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_another_base_is_refused_with_both_named(
    mode: str, shape, reason: str, moved_to, load, adapter_of_tiny_model: Path
) -> None:
    base = moved_to(**shape)
    with pytest.raises(UserError) as caught:
        load(train_mode=mode, model_name_or_path=str(adapter_of_tiny_model))
    message = str(caught.value)
    assert message.startswith(f"model_name_or_path: the adapter {adapter_of_tiny_model} ") and reason in message
    assert message.endswith(f"; it was loaded onto {base}, the base that its adapter_config.json names; check both")
    with pytest.raises(UserError):
        load_for_inference(str(adapter_of_tiny_model), device="cpu")


@pytest.mark.parametrize("mode", ["lora", "qlora", "full"])
def test_a_reward_model_starts_as_the_language_model_with_its_adapter(mode: str, load, tmp_path: Path) -> None:
    """The hidden states are the same to the last bit; rank and alpha are the adapter's, and the head is new."""
    trained_mode = "lora" if mode == "full" else mode
    language_model = load(train_mode=trained_mode).model
    torch.manual_seed(0)
    for name, parameter in language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    language_model.save_pretrained(tmp_path / "sft")
    scored = load(train_mode=mode, task_type="reward", model_name_or_path=str(tmp_path / "sft"))
    ids = torch.tensor([[5, 9, 44, 120, 7]])
    with torch.no_grad():
        before, after = (
            model.eval()(ids, output_hidden_states=True).hidden_states[-1] for model in (language_model, scored.model)
        )
    if mode == "full":
        torch.testing.assert_close(after, before)
    else:
        assert torch.equal(after, before)
        assert scored.peft_config.r == 4 and scored.peft_config.task_type == "SEQ_CLS"
        parts = ("lora_A", "lora_B", "score.modules_to_save")
        names = [name for name, value in scored.model.named_parameters() if value.requires_grad]
        assert {part for part in parts if any(part in name for name in names)} == {*parts}
        assert all(any(part in name for part in parts) for name in names)
        assert any("its rank 4, alpha 8" in notice for notice in scored.notices)
    assert any("whose score head is new" in notice for notice in scored.notices)
    fresh = load(train_mode=trained_mode, task_type="reward").model
    heads = [model.get_parameter(name) for model, name in (
        (fresh, "base_model.model.score.modules_to_save.default.weight"),
        (scored.model, "score.weight" if mode == "full" else "base_model.model.score.modules_to_save.default.weight"),
    )]  # fmt: skip
    assert torch.equal(*heads), "the head is drawn from the seed as without an adapter"


def test_an_adapter_that_lacks_a_layer_starts_no_reward_model(load, moved_to, adapter_of_tiny_model: Path) -> None:
    base = moved_to(num_hidden_layers=3)
    with pytest.raises(UserError, match=f"lacks weights of layers.*{base}"):
        load(train_mode="lora", task_type="reward", model_name_or_path=str(adapter_of_tiny_model))


def test_the_adapter_of_a_reward_model_starts_no_language_model(load, tiny_model: Path, tmp_path: Path) -> None:
    load(train_mode="lora", task_type="reward").model.save_pretrained(tmp_path / "reward")
    with pytest.raises(UserError) as caught:
        load(train_mode="lora", model_name_or_path=str(tmp_path / "reward"))
    assert str(caught.value) == (
        f"model_name_or_path: {tmp_path / 'reward'} is an adapter of a reward model, whose head gives a score and no "
        f"tokens; name its base {tiny_model}"
    )

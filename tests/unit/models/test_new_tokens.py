"""Tokens that a run adds: in tokenizer and rendered rows, as rows of embeddings and head, saved and reloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from component.config.errors import ConfigError, UserError
from component.config.load import load_config
from component.config.schema import AdapterSection, DataSection
from component.data.rows import Message
from component.models.inference import load_for_inference
from component.models.tiny import Shape, make_tiny_model
from component.models.tokenizer import load_tokenizer, own_tokenizer
from component.pipeline.rendering import build_rendering

TOKENS = ["<tool>", "</tool>"]


def log_probabilities(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Over the tokens up to the new ones, after a text that holds both."""
    start, end = tokenizer.convert_tokens_to_ids(TOKENS)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[5, 9, start, 44, end, 7]]), use_cache=False).logits
    return logits[..., : end + 1].log_softmax(-1)


def move(model: torch.nn.Module) -> None:
    """Stands for training: changes every trained weight."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.05


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def any_model(request, tmp_path: Path) -> str:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 4, encoding="utf-8")
    shape = Shape(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, max_position_embeddings=128,
        tie_word_embeddings=request.param,
    )  # fmt: skip
    make_tiny_model(tmp_path / "model", shape=shape, seed=0, texts=[text])
    return str(tmp_path / "model")


def test_a_row_starts_as_the_mean_of_its_parts(load, any_model: str) -> None:
    plain = load(train_mode="full", model_name_or_path=any_model)
    loaded = load(train_mode="full", model_name_or_path=any_model, new_tokens=TOKENS)
    before = plain.tokenizer
    for head in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(model, head)().weight for model in (plain.model, loaded.model))
        assert len(new) == len(loaded.tokenizer) == len(before) + 2
        assert torch.equal(new[: len(before)], old[: len(before)])
        for text in TOKENS:
            parts = before.encode(text, add_special_tokens=False)
            assert len(parts) > 1
            assert torch.equal(new[loaded.tokenizer.convert_tokens_to_ids(text)], old[parts].mean(dim=0))
    assert loaded.model.config.vocab_size == len(before) + 2


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_beside_an_adapter_the_new_rows_alone_are_trained_saved_and_reloaded(
    mode: str, load, any_model: str, tmp_path: Path
) -> None:
    loaded = load(train_mode=mode, model_name_or_path=any_model, new_tokens=TOKENS)
    others = {name for name, value in loaded.model.named_parameters() if value.requires_grad and "lora_" not in name}
    is_tied = loaded.model.config.tie_word_embeddings
    assert len(others) == (1 if is_tied else 2) and all(
        name.endswith("trainable_tokens_delta.default") for name in others
    )
    move(loaded.model)
    expected = log_probabilities(loaded.model, loaded.tokenizer)
    loaded.model.save_pretrained(tmp_path / "run")
    loaded.tokenizer.save_pretrained(tmp_path / "run")
    rest = {name: value for name, value in load_file(tmp_path / "run" / "adapter_model.safetensors").items()
            if "lora_" not in name}  # fmt: skip
    assert len(rest) == len(others) and all(value.shape == (2, 64) for value in rest.values())
    again = load(train_mode=mode, model_name_or_path=str(tmp_path / "run"))
    assert torch.equal(log_probabilities(again.model, again.tokenizer), expected)
    assert {value.requires_grad for name, value in again.model.named_parameters() if "tokens_delta" in name} == {True}
    if mode == "lora":
        model, tokenizer = load_for_inference(str(tmp_path / "run"), device="cpu")
        assert torch.equal(log_probabilities(model, tokenizer), expected)
        assert tokenizer.encode("<tool>", add_special_tokens=False) == [len(tokenizer) - 2]
        merged = load(train_mode="full", model_name_or_path=str(tmp_path / "run"), new_tokens=["<more>"])
        torch.testing.assert_close(log_probabilities(merged.model, merged.tokenizer), expected)


def test_rows_that_are_trained_in_full_need_no_others(load, any_model: str, tmp_path: Path) -> None:
    adapter = AdapterSection(lora_rank=4, lora_alpha=8, modules_to_save=["embed_tokens"])
    loaded = load(adapter, train_mode="lora", model_name_or_path=any_model, new_tokens=TOKENS)
    is_tied = loaded.model.config.tie_word_embeddings
    ids = loaded.tokenizer.convert_tokens_to_ids(TOKENS)
    assert loaded.peft_config.trainable_token_indices == (None if is_tied else {"lm_head": ids})
    move(loaded.model)
    expected = log_probabilities(loaded.model, loaded.tokenizer)
    loaded.model.save_pretrained(tmp_path / "run")
    loaded.tokenizer.save_pretrained(tmp_path / "run")
    again = load(train_mode="lora", model_name_or_path=str(tmp_path / "run"))
    assert torch.equal(log_probabilities(again.model, again.tokenizer), expected)


def test_an_adapter_without_rows_for_them_gets_none(load, tmp_path: Path) -> None:
    load(train_mode="lora").model.save_pretrained(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        load(train_mode="lora", model_name_or_path=str(tmp_path / "run"), new_tokens=TOKENS)
    assert str(caught.value) == (
        f"new_tokens: training goes on from the adapter {tmp_path / 'run'}, which has no rows for them; name them in "
        "the run that makes the adapter, or use train_mode: full, which merges it"
    )


def test_unused_rows_of_a_padded_vocabulary_are_taken(section, load, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    model = load(train_mode="full").model
    model.resize_token_embeddings(384)
    model.save_pretrained(folder)
    own_tokenizer(section()).save_pretrained(folder)
    loaded = load(train_mode="full", model_name_or_path=str(folder), new_tokens=TOKENS)
    assert len(loaded.model.get_input_embeddings().weight) == 384
    assert any("unused rows take them up" in notice for notice in loaded.notices)


def test_a_token_that_is_there_already_stays(section, load) -> None:
    model = section(new_tokens=["the", "<tool>"], train_mode="lora")
    tokenizer = load_tokenizer(model)
    known = own_tokenizer(model).get_vocab()
    assert "the" in known and "<tool>" not in known
    assert f"new_tokens: the is token {known['the']} already and gets no row of its own" in tokenizer.notices
    loaded = load(train_mode="lora", new_tokens=["the", "<tool>"])
    assert set(map(tuple, loaded.peft_config.trainable_token_indices.values())) == {(len(known),)}


@pytest.mark.parametrize("treatment", ["text", "control", "reject"])
def test_each_is_one_token_wherever_a_row_writes_it(treatment: str, section) -> None:
    """In the user's turn and in the answer, beside letters too; it is no control token, which would be taken apart."""
    model = section(new_tokens=TOKENS)
    tokenizer = load_tokenizer(model).tokenizer
    data = DataSection(train_file=["x"], content_control_tokens=treatment)
    rendering = build_rendering(data, tokenizer, "messages")
    messages = (Message("user", "a<tool>b"), Message("assistant", "<tool>5</tool>end"))
    rendered = rendering.renderer.encode(messages)
    start, end = (tokenizer.convert_tokens_to_ids(text) for text in TOKENS)
    assert [list(rendered.input_ids).count(token) for token in (start, end)] == [2, 1]
    assert not rendered.notices
    assert tokenizer.decode([start], skip_special_tokens=True) == "<tool>"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"new_tokens": ["<a>", "<b>", "<a>"]}, 'new_tokens: "<a>" is named 2 times; name each once'),
        ({"new_tokens": ["<a>", ""]}, "new_tokens: is empty; write a value, or remove the key"),
        ({"new_tokens": ["<a>", " "]}, "new_tokens: one of them is white space alone; name tokens with a text"),
        (
            {"new_tokens": ["<a>"], "train_mode": "full", "freeze_trainable_layers": 1},
            "freeze_trainable_layers trains layers alone, and not the embeddings of new_tokens",
        ),
        ({"add_tokens": ["<a>"]}, "add_tokens: unknown key; use new_tokens"),
    ],
    ids=["twice", "empty", "white", "frozen", "other name"],
)
def test_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model_name_or_path": "m", "train_file": "d", "output_dir": "o", **values})
    assert problem in str(caught.value)

"""Answering with base models and adapters."""

from __future__ import annotations

import pytest
import torch

from component.config.errors import UserError
from component.models.inference import generate_answers, load_for_inference, read_run_settings
from component.models.precision import resolve_precision
from component.models.quantization import four_bit_layers
from component.models.tokenizer import load_tokenizer
from component.models.vanilla import load_vanilla

PROMPTS = [[5, 6, 7], [9], [20, 21, 22, 23, 24]]


def test_a_left_padded_batch_answers_as_each_prompt_alone(tiny_model) -> None:
    model, tokenizer = load_for_inference(str(tiny_model), device="cpu")
    settings = {"max_new_tokens": 6, "stop_token_ids": [], "pad_token_id": tokenizer.pad_token_id}
    together = generate_answers(model, PROMPTS, **settings)
    assert together == [generate_answers(model, [prompt], **settings)[0] for prompt in PROMPTS]
    assert [len(answer) for answer in together] == [6, 6, 6]
    with torch.no_grad():
        first = model(torch.tensor([PROMPTS[0]])).logits[0, -1].argmax().item()
    assert together[0][0] == first


def test_a_stop_token_ends_the_answer_and_is_left_out(tiny_model) -> None:
    model, tokenizer = load_for_inference(str(tiny_model), device="cpu")
    settings = {"max_new_tokens": 6, "pad_token_id": tokenizer.pad_token_id}
    (answer,) = generate_answers(model, PROMPTS[:1], stop_token_ids=[], **settings)
    stop = answer[2]
    (stopped,) = generate_answers(model, PROMPTS[:1], stop_token_ids=[stop], **settings)
    assert stopped == answer[: answer.index(stop)]


def test_the_mode_of_a_training_model_is_kept(tiny_model) -> None:
    model, _ = load_for_inference(str(tiny_model), device="cpu")
    model.train()
    generate_answers(model, PROMPTS, max_new_tokens=1, stop_token_ids=[], pad_token_id=0)
    assert model.training


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_an_adapter_answers_on_the_base_that_it_was_trained_on(section, adapter, cpu, tmp_path, mode) -> None:
    model = section(train_mode=mode, gradient_checkpointing=False)
    trained = load_vanilla(
        model,
        adapter,
        tokenizer=load_tokenizer(model).tokenizer,
        precision=resolve_precision(model, cpu),
        hardware=cpu,
        gradient_checkpointing_kwargs={},
    ).model
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    trained.save_pretrained(tmp_path)
    (tmp_path / "train_args.yaml").write_text(f"train_mode: {mode}\nbnb_4bit_quant_type: nf4\n")
    loaded, _ = load_for_inference(str(tmp_path), device="cpu")
    assert bool(four_bit_layers(loaded)) is (mode == "qlora")
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, trained.eval()(ids).logits)


@pytest.mark.parametrize("content", ["a: [", "- a", "\x00", "a: 1\n\tb: 2"])
def test_damaged_settings_of_a_run_are_named(tmp_path, content) -> None:
    (tmp_path / "train_args.yaml").write_text(content)
    with pytest.raises(UserError, match="train_args.yaml (cannot be read: |holds no keys).*; mend the file$"):
        read_run_settings(str(tmp_path))

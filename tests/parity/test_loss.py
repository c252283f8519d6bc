"""Our trainer computes what transformers' own model computes: losses, gradients and weights, on a CPU in float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from component.artifacts.metrics import read_metrics
from component.config.load import load_config
from component.data.order import epoch_order
from component.pipeline import run
from component.pipeline.build_run import build_run
from component.pipeline.prepare import prepare

#: float32 sums in another order.
TOLERANCE = 1e-6


def build_trainer(settings: dict[str, Any], folder: Path) -> Trainer:
    return build_run(prepare(load_config({**settings, "output_dir": str(folder)}))).trainer


def reference_samples(tiny_model: Path, conversations: Path) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of each conversation, made here from the chat template and its control tokens alone."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assistant, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    samples = []
    for line in conversations.read_text(encoding="utf-8").splitlines():
        messages = []
        for turn in json.loads(line)["conversation"]:
            messages += [{"role": "user", "content": turn["human"]}]
            messages += [{"role": "assistant", "content": turn["assistant"]}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        labels, is_answer = [], False
        for token in ids:
            labels.append(token if is_answer else -100)
            is_answer = token == assistant or (is_answer and token != end)
        samples.append((ids, labels))
    return samples


def collate(samples: Sequence[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in samples)
    return {
        "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in samples]),
        "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in samples]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in samples]),
    }


@pytest.fixture(scope="module")
def full_settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Plain gradient descent: Adam would turn rounding errors of near-zero gradients into whole steps."""
    return {
        **tiny_settings,
        "train_mode": "full",
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
    }


def test_loss_and_gradients_of_a_batch(full_settings, tiny_model, conversations, tmp_path) -> None:
    """Four micro-batches give the loss and the gradients that transformers gives for all their rows at once."""
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    trainer = build_trainer({**full_settings, **batches}, tmp_path)
    iterator = iter(trainer.get_train_dataloader())
    micro_batches, num_items = trainer.get_batch_samples(iterator, 4, trainer.args.device)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 4
    loss = sum(trainer.training_step(trainer.model, batch, num_items) for batch in micro_batches)

    samples = reference_samples(tiny_model, conversations)
    rows = collate([samples[row] for row in epoch_order(len(samples), seed=42, epoch=0)[:8]])
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = reference(**rows).loss
    expected.backward()

    assert num_items == rows["labels"].ne(-100).sum()
    torch.testing.assert_close(loss, expected.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert {name for name, _ in trainer.model.named_parameters()} == gradients.keys()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=TOLERANCE, msg=name)


def test_batch_shapes_are_equal_to_plain_training(full_settings, tiny_model, conversations, tmp_path) -> None:
    """8 x 1, 4 x 2 and 1 x 8 rows a step: the losses and weights of a plain loop; the third step has six rows."""
    samples = reference_samples(tiny_model, conversations)
    order = epoch_order(len(samples), seed=42, epoch=0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    for start in range(0, len(order), 8):
        loss = model(**collate([samples[row] for row in order[start : start + 8]])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert len(expected) == 3 and len({len(ids) for ids, _ in samples}) > 3

    for batch, accumulation in ((8, 1), (4, 2), (1, 8)):
        folder = tmp_path / f"{batch}x{accumulation}"
        shape = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        run({**full_settings, **shape, "output_dir": str(folder)})
        losses = [record["loss"] for record in read_metrics(folder)]
        assert losses == pytest.approx(expected, abs=1e-5), folder.name
        weights = load_file(folder / "model.safetensors")
        for name, parameter in model.named_parameters():
            if name in weights:  # the head is the embedding
                torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=1e-5, msg=name)


def test_evaluation_loss_is_a_token_mean(full_settings, tiny_model, conversations, tmp_path) -> None:
    """It does not depend on the batch size and equals the sum of the tokens' losses over their number."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total, count = 0.0, 0
    for ids, labels in reference_samples(tiny_model, conversations):
        with torch.no_grad():
            log_probabilities = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        for position, label in enumerate(labels[1:]):
            if label != -100:
                total -= log_probabilities[position, label].item()
                count += 1
    for batch_size in (1, 3, 8):
        settings = {**full_settings, "eval_file": str(conversations), "per_device_eval_batch_size": batch_size}
        trainer = build_trainer(settings, tmp_path / str(batch_size))
        assert trainer.evaluate()["eval_loss"] == pytest.approx(total / count, abs=1e-5), batch_size


def test_what_is_trained_and_quantized(tiny_settings, tmp_path) -> None:
    """QLoRA: every linear layer but the head is bitsandbytes' Linear4bit in NF4, and the adapter alone is trained."""
    import bitsandbytes

    model = build_trainer({**tiny_settings, "train_mode": "qlora"}, tmp_path).model
    layers = {name: module for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    assert len(layers) == 14  # two layers of q, k, v, o, gate, up, down
    assert {layer.weight.quant_type for layer in layers.values()} == {"nf4"}
    assert all(layer.weight.dtype is torch.uint8 and layer.weight.quant_state.nested for layer in layers.values())
    base = model.get_base_model()
    assert type(base.lm_head) is torch.nn.Linear
    assert type(base.model.embed_tokens) is torch.nn.Embedding
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 28 and all("lora_A" in name or "lora_B" in name for name in trained)


def test_smoothed_labels(full_settings, tiny_model, conversations, tmp_path) -> None:
    """A tenth of each label is spread over the vocabulary; a mean over the tokens of all micro-batches too."""
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    smoothing = {"extra_training_args": {"label_smoothing_factor": 0.1}}
    built = build_run(prepare(load_config({**full_settings, **batches, **smoothing, "output_dir": str(tmp_path)})))
    reason = "label_smoothing_factor is computed outside of the model, from all scores"
    assert built.context.decided["loss_chunk_tokens"] == {"asked": None, "got": None, "reason": reason}
    trainer = built.trainer
    micro_batches, num_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 2
    loss, expected = 0.0, 0.0
    for batch in micro_batches:
        scores = trainer.model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")).logits
        targets = {"target": batch["labels"][:, 1:].flatten(), "reduction": "sum", "label_smoothing": 0.1}
        expected += torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), **targets).item()
        loss += trainer.training_step(trainer.model, dict(batch), num_items).item()
    assert loss == pytest.approx(expected / num_items.item(), abs=TOLERANCE)

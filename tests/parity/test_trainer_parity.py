"""The first step of pretrain and sft, packed and not, is that of transformers' own Trainer on rows made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from component.artifacts.metrics import read_metrics
from component.config.load import load_config
from component.pipeline import run
from component.pipeline.build_run import build_run
from component.pipeline.prepare import prepare

#: float32 sums in another order.
TOLERANCE = 1e-6
Rows = list[dict[str, list[int]]]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine documents of unequal lengths."""
    file = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    texts = ["one heron waits. " * (1 + number * 7 % 9) + f"Then {number} foxes come." for number in range(9)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def document_rows(file: Path, tokenizer: PreTrainedTokenizerBase) -> Rows:
    """Every token of a document is learned, its end included, and none of another's."""
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    return [{"input_ids": of_text, "labels": list(of_text)} for of_text in ids]


def conversation_rows(file: Path, tokenizer: PreTrainedTokenizerBase) -> Rows:
    """The answers are learned, their ends included."""
    assistant, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        messages = []
        for turn in json.loads(line)["conversation"]:
            messages += [{"role": "user", "content": turn["human"]}]
            messages += [{"role": "assistant", "content": turn["assistant"]}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        labels, is_answer = [], False
        for token in ids:
            labels.append(token if is_answer else -100)
            is_answer = token == assistant or (is_answer and token != end)
        rows.append({"input_ids": ids, "labels": labels})
    return rows


ROWS: dict[str, Callable[[Path, PreTrainedTokenizerBase], Rows]] = {
    "pretrain": document_rows,
    "sft": conversation_rows,
}


def our_trainer(settings: dict[str, Any], folder: Path) -> Trainer:
    return build_run(prepare(load_config({**settings, "output_dir": str(folder)}))).trainer


def their_trainer(model: Path, rows: Rows, folder: Path, *, batch: int, accumulation: int) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(model)
    arguments = TrainingArguments(
        str(folder), use_cpu=True, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        report_to=[], train_sampling_strategy="sequential",
    )  # fmt: skip
    return Trainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    )


def first_step(trainer: Trainer) -> tuple[float, int, dict[str, torch.Tensor]]:
    """Loss, its number of tokens and the gradients of a step on all rows, by the trainer's own methods."""
    steps = trainer.args.gradient_accumulation_steps
    batches, num_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), steps, trainer.args.device)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = len(batches)
    loss = sum(float(trainer.training_step(trainer.model, batch, num_items)) for batch in batches)
    return loss, int(num_items), {name: value.grad for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("task", ROWS)
def test_the_first_step(
    task: str, packing: bool, tiny_settings, tiny_model, conversations, documents, tmp_path: Path
) -> None:
    """Gradients over several micro-batches of unequal length; our order of rows is another, so all are in the step."""
    file = documents if task == "pretrain" else conversations
    rows = ROWS[task](file, AutoTokenizer.from_pretrained(tiny_model))
    settings = {**tiny_settings, "task_type": task, "train_mode": "full", "train_file": str(file), "packing": packing}
    ours = our_trainer(
        {**settings, "per_device_train_batch_size": 2, "gradient_accumulation_steps": len(rows) // 2 + 1}, tmp_path
    )
    assert (len(ours.train_dataset) < len(rows)) is packing
    theirs = their_trainer(tiny_model, rows, tmp_path / "theirs", batch=4, accumulation=len(rows) // 4 + 1)
    loss, num_tokens, gradients = first_step(ours)
    expected, num_expected, expected_gradients = first_step(theirs)
    assert num_tokens == num_expected == sum(label != -100 for row in rows for label in row["labels"][1:])
    if task == "pretrain":
        assert num_tokens == sum(len(row["input_ids"]) - 1 for row in rows)
    assert loss == pytest.approx(expected, abs=TOLERANCE)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=TOLERANCE, msg=name)


def test_perplexity_of_documents(tiny_settings, tiny_model, documents, tmp_path: Path, capsys) -> None:
    """exp of the mean over all tokens of the set, whatever the batches; packed training leaves evaluation as it is."""
    settings = {**tiny_settings, "task_type": "pretrain", "train_mode": "full", "train_file": str(documents)}
    settings |= {"eval_file": str(documents), "per_device_eval_batch_size": 4, "packing": True, "max_steps": 2}
    settings |= {"eval_steps": 2}
    result = run({**settings, "output_dir": str(tmp_path / "run")})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run", dtype=torch.float32)
    total, count = 0.0, 0
    for row in document_rows(documents, AutoTokenizer.from_pretrained(tiny_model)):
        ids = torch.tensor(row["input_ids"])
        with torch.no_grad():
            log_probabilities = model(ids[None]).logits[0, :-1].double().log_softmax(-1)
        total -= log_probabilities.gather(-1, ids[1:, None]).sum().item()
        count += len(ids) - 1
    expected = math.exp(total / count)
    (line,) = (record for record in read_metrics(tmp_path / "run") if "eval_loss" in record)
    assert line["eval_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert line["eval_perplexity"] == pytest.approx(math.exp(line["eval_loss"]))
    manifest = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["eval_perplexity"] == result.metrics["eval_perplexity"] == line["eval_perplexity"]
    output = capsys.readouterr()
    assert f"eval loss    {line['eval_loss']:.4f}, perplexity {expected:,.2f}\n" in output.out
    assert f"step 2/2  eval loss {line['eval_loss']:.4f}  perplexity {expected:,.2f}" in output.err


def test_the_perplexity_of_experts_is_without_their_balancing(tiny_settings, documents, tmp_path: Path) -> None:
    """The load-balancing loss is trained on and is none of the language."""
    from component.models.tiny import Shape, make_tiny_model

    make_tiny_model(tmp_path / "model", shape=Shape(), seed=0, texts=[documents], model_type="mixtral")
    settings = {**tiny_settings, "task_type": "pretrain", "train_mode": "full", "train_file": str(documents)}
    settings |= {"model_name_or_path": str(tmp_path / "model"), "eval_file": str(documents)}
    trainer = our_trainer(settings, tmp_path / "run")
    assert trainer.model.config.output_router_logits
    total, count = 0.0, 0
    for row in document_rows(documents, AutoTokenizer.from_pretrained(tmp_path / "model")):
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logits = trainer.model.eval()(ids, output_router_logits=False).logits
        total += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    assert trainer.evaluate()["eval_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)

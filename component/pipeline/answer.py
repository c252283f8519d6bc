"""Answers of a trained model: the same template and stop tokens as in training, greedy generation in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from component.data.formats.detect import detect_format
from component.data.formats.interface import load_format
from component.data.records import Record
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import Message, Row
from component.data.sources import find_files, read_records
from component.data.templates import load_chat_template
from component.models.inference import load_for_inference, read_run_settings
from component.runtime.distributed import rank
from component.runtime.hardware import detect_hardware
from component.runtime.logging import configure_logging

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 32


@dataclass(frozen=True)
class Answerer:
    """A model that answers conversations."""

    model: PreTrainedModel
    renderer: Renderer

    def answer(self, conversations: Sequence[Sequence[Message]], *, max_new_tokens: int) -> Iterator[str]:
        """Answer each conversation, whose last message is the user's; in order."""
        from component.models.inference import generate_answers

        tokenizer = self.renderer.tokenizer
        for start in range(0, len(conversations), BATCH_SIZE):
            prompts = [self.renderer.encode_prompt(messages) for messages in conversations[start : start + BATCH_SIZE]]
            answers = generate_answers(
                self.model,
                prompts,
                max_new_tokens=max_new_tokens,
                stop_token_ids=self.renderer.stop_token_ids,
                pad_token_id=tokenizer.pad_token_id,
            )
            yield from (tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers)


def load_answerer(name: str, *, template_name: str = "auto", use_cpu: bool = False) -> Answerer:
    """Load a model for answering.

    Args:
        name: a run folder, an adapter or model folder, or a hub id.
        template_name: as in a config; a run folder has its own.

    Raises:
        UserError: the model or the template cannot be used.
    """
    configure_logging(None, rank())
    hardware = detect_hardware(use_cpu)
    model, tokenizer = load_for_inference(name, device="cuda:0" if hardware.kind == "cuda" else hardware.kind)
    settings = read_run_settings(name)
    renderer = Renderer(
        tokenizer,
        load_chat_template(template_name, tokenizer),
        template_kwargs=settings.get("chat_template_kwargs"),
        options=RenderOptions(
            append_stop_token=settings.get("append_stop_token", False),
            default_system=settings.get("default_system"),
            content_control_tokens=settings.get("content_control_tokens", "text"),
        ),
    )
    return Answerer(model, renderer)


@dataclass(frozen=True)
class Score:
    """How many answers equal the expected ones; `examples` holds each question with both."""

    num_exact: int
    num_questions: int
    examples: tuple[dict[str, Any], ...]


def score_exact_match(answerer: Answerer, files: Sequence[str], *, max_new_tokens: int) -> Score:
    """Ask the questions of data files and compare each row's last assistant turn, white space at its ends aside."""
    rows = [row for row in _read_rows(files) if row.messages and row.messages[-1].role == "assistant"]
    answers = answerer.answer([row.messages[:-1] for row in rows], max_new_tokens=max_new_tokens)
    examples = tuple(
        {
            "source": str(row.source),
            "question": row.messages[-2].content if len(row.messages) > 1 else "",
            "expected": row.messages[-1].content.strip(),
            "answer": answer,
            "exact": answer == row.messages[-1].content.strip(),
        }
        for row, answer in zip(rows, answers, strict=True)
    )
    return Score(sum(example["exact"] for example in examples), len(examples), examples)


def _read_rows(files: Sequence[str]) -> Iterator[Row]:
    for file in find_files(files, key="--data", row_kind="messages").files:
        records = [record for record in read_records(file) if isinstance(record, Record)]
        row_format = load_format(detect_format([record.value for record in records], "messages", file.name))
        yield from (row_format.parse(record.value, record.source) for record in records)

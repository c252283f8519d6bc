"""Answers of a trained model: the same template and stop tokens as in training, greedy generation in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.bad_rows import count_bad, first_bad
from component.data.reading import read_rows
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.report import reason_category
from component.data.rows import Failure, Message, Row, RowError
from component.data.sources import find_files
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
        for start in range(0, len(conversations), BATCH_SIZE):
            batch = conversations[start : start + BATCH_SIZE]
            yield from self.answer_prompts(
                [self.renderer.encode_prompt(messages) for messages in batch], max_new_tokens=max_new_tokens
            )

    def answer_prompts(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> Iterator[str]:
        """Answer prompts, which are token ids up to where the answer begins; in order."""
        from component.models.inference import generate_answers

        tokenizer = self.renderer.tokenizer
        for start in range(0, len(prompts), BATCH_SIZE):
            answers = generate_answers(
                self.model,
                prompts[start : start + BATCH_SIZE],
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
    """How many answers equal the expected ones.

    Attributes:
        examples: each question with both answers.
        failures: rows that hold no question with an answer, in the order of the files; they are not asked.
    """

    num_exact: int
    num_questions: int
    examples: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...] = ()

    def describe_failures(self) -> list[str]:
        """The first rows that were not asked, a line each, then how many there are, and why; empty without any."""
        if not self.failures:
            return []
        first = first_bad(self.failures, len(self.failures), whole_list="--json FILE")
        return [*first, f"{_count_failures(self.failures, self.num_questions)} and were not asked"]


def score_exact_match(answerer: Answerer, files: Sequence[str], *, max_new_tokens: int) -> Score:
    """Ask the questions of data files and compare each row's last assistant turn, white space at its ends aside.

    Raises:
        DataError: no row can be asked; the first bad ones follow the summary, one line each.
    """
    questions, failures = list[tuple[Row, Sequence[int]]](), list[Failure]()
    for item in _read_questions(answerer.renderer, files):
        if isinstance(item, Failure):
            failures.append(item)
        else:
            questions.append(item)
    if not questions and not failures:
        raise DataError(f"--data: {', '.join(files)} holds no rows; put data there or name another file")
    if not questions:
        summary = _count_failures(failures, 0)
        first = first_bad(failures, len(failures), whole_list=None)
        raise DataError(f"--data: no usable row: {summary}; correct the data", *first)
    answers = answerer.answer_prompts([prompt for _, prompt in questions], max_new_tokens=max_new_tokens)
    examples = tuple(
        {
            "source": str(row.source),
            "question": row.messages[-2].content if len(row.messages) > 1 else "",
            "expected": row.messages[-1].content.strip(),
            "answer": answer,
            "exact": answer == row.messages[-1].content.strip(),
        }
        for (row, _), answer in zip(questions, answers, strict=True)
    )
    return Score(sum(example["exact"] for example in examples), len(examples), examples, tuple(failures))


def _count_failures(failures: Sequence[Failure], num_questions: int) -> str:
    reasons = Counter(reason_category(failure.reason) for failure in failures)
    return count_bad(len(failures), num_questions + len(failures), dict(reasons.most_common()))


def _read_questions(renderer: Renderer, files: Sequence[str]) -> Iterator[tuple[Row, Sequence[int]] | Failure]:
    """Each row with the token ids of its prompt, or why it cannot be asked."""
    data = DataSection(train_file=list(files))
    for file in find_files(files, key="--data", row_kind="messages").files:
        for row in read_rows(file, data, "messages").rows:
            if isinstance(row, Failure):
                yield row
                continue
            try:
                yield row, _encode_question(renderer, row)
            except RowError as error:
                yield Failure(row.source, str(error))


def _encode_question(renderer: Renderer, row: Row) -> Sequence[int]:
    """The prompt of a row's last answer, as token ids.

    Raises:
        RowError: it has no such answer, or the template refuses the conversation.
    """
    if not row.messages:
        raise RowError("no conversation: the row is text without a template")
    if row.messages[-1].role != "assistant":
        raise RowError(f"no answer to compare with: the last message is {row.messages[-1].role}'s")
    return renderer.encode_prompt(row.messages[:-1])

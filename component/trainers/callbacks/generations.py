"""Sample answers at each evaluation: greedy, from the exact prompts of the first evaluation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loguru import logger
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from component.artifacts.metrics import MetricsWriter
from component.config.schema import GenerationSection
from component.models.inference import generate_answers

if TYPE_CHECKING:
    from component.data.rows import Prepared
    from component.trainers.task import RunContext

FILE_NAME = "generations.jsonl"


class GenerationCallback(TrainerCallback):
    """Writes generations.jsonl (step, source, expected, answer) and shows the samples in the log."""

    def __init__(
        self,
        samples: Sequence[Prepared],
        generation: GenerationSection,
        tokenizer: PreTrainedTokenizerBase,
        context: RunContext,
    ) -> None:
        self._samples = samples
        self._generation = generation
        self._tokenizer = tokenizer
        self._context = context
        self._writer = MetricsWriter(context.output_dir, FILE_NAME)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Cut the file back to the checkpoint of a resumed run."""
        if state.is_world_process_zero:
            self._writer.cut_back(state.global_step)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Answer each sample's last supervised turn; the prompt is the tokens before it."""
        if not state.is_world_process_zero:
            return
        prompts = [list(sample.input_ids[: sample.spans[-1][0]]) for sample in self._samples]
        answers = generate_answers(
            model,
            prompts,
            max_new_tokens=self._generation.generation_max_new_tokens,
            stop_token_ids=self._context.stop_token_ids,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        for sample, answer in zip(self._samples, answers, strict=True):
            record = {
                "step": state.global_step,
                "source": str(sample.source),
                "expected": self._decode(sample.input_ids[slice(*sample.spans[-1])]),
                "answer": self._decode(answer),
            }
            self._writer.write(record)
            logger.info(f"{record['source']} expected {record['expected']!r} got {record['answer']!r}")

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True).strip()

"""The sft task: next-token loss on the assistant's turns, stop token included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from component.trainers.callbacks.generations import GenerationCallback
from component.trainers.causal_lm import CausalLMTrainer, build_causal_lm_trainer
from component.trainers.task import RunContext, Task

if TYPE_CHECKING:
    from component.config.schema import GenerationSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel


def build_sft_trainer(
    generation: GenerationSection,
    training: TrainingSection,
    model: LoadedModel,
    data: PreparedData,
    context: RunContext,
) -> CausalLMTrainer:
    """Build the trainer, which samples answers at evaluations if the config asks for them."""
    samples = data.evaluation[: generation.num_eval_generations]
    callbacks = (GenerationCallback(samples, generation, model.tokenizer, context),) if samples else ()
    return build_causal_lm_trainer(training, model, data, context, callbacks)


SFT = Task(name="sft", row_kind="messages", section="generation", build=build_sft_trainer)

"""The pretrain task: next-token loss on every token of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from component.trainers.causal_lm import CausalLMTrainer, build_causal_lm_trainer
from component.trainers.task import RunContext, Task

if TYPE_CHECKING:
    from component.config.schema import GenerationSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel


def build_pretrain_trainer(
    generation: GenerationSection,
    training: TrainingSection,
    model: LoadedModel,
    data: PreparedData,
    context: RunContext,
) -> CausalLMTrainer:
    """Build the trainer; the task has no settings of its own yet."""
    return build_causal_lm_trainer(training, model, data, context)


PRETRAIN = Task(name="pretrain", row_kind="text", section="generation", build=build_pretrain_trainer)

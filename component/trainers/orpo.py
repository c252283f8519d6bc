"""The orpo task: supervised fine-tuning and preferences in one loss, without a reference
(https://arxiv.org/abs/2403.07691)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import TrainingArguments

from component.data.collators import PaddingCollator
from component.data.pairs import SIDES, PairCollator, PairDataset
from component.trainers.task import RunContext, Task
from component.trainers.trl_trainer import TRLTrainer, build_trl_arguments, trainer_inputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that its interface may change; requirements.txt pins it
    from trl.experimental import orpo

if TYPE_CHECKING:
    from component.config.schema import ORPOSection, TrainingSection
    from component.data.prepare import PreparedData
    from component.models.loaded import LoadedModel


class _GivenDataset(PairDataset):
    """Pairs that stay as they are where TRL would tokenize them."""

    def map(self, *args: Any, **kwargs: Any) -> _GivenDataset:
        return self


class _Collator:
    """Pads each side by itself, as TRL's orpo reads them; what both sides have together is there for the counts."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = PaddingCollator(pad_token_id)
        self._pair = PairCollator(pad_token_id)

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        sides = {side: self._pad([pair[side] for pair in pairs]) for side in SIDES}
        named = {f"{side}_{name}": value for side, batch in sides.items() for name, value in batch.items()}
        return self._pair(pairs) | named


class ORPOTrainer(TRLTrainer, orpo.ORPOTrainer):
    """TRL's trainer on prepared pairs."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_dpo_data_collator = True  # it warns of collators other than its own

    def _given(self, dataset: _GivenDataset) -> _GivenDataset:
        """Changed: this trainer has no _prepare_dataset, and maps what it is given."""
        return dataset

    @property
    def _metrics(self) -> dict[str, Any]:
        """What is not logged yet, under the name that TRL's other trainers have for it."""
        return self._stored_metrics


def build_orpo_arguments(
    orpo_section: ORPOSection, training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments]
) -> TrainingArguments:
    """TRL's arguments for this task, every one passed."""
    return build_trl_arguments(
        training,
        context,
        arguments_class,
        beta=orpo_section.beta,
        disable_dropout=orpo_section.disable_dropout,
        max_length=training.max_seq_length,
        max_completion_length=None,
        generate_during_eval=False,
        is_encoder_decoder=None,
        padding_value=None,
    )


def build_orpo_trainer(
    orpo_section: ORPOSection, training: TrainingSection, model: LoadedModel, data: PreparedData, context: RunContext
) -> ORPOTrainer:
    """Build the trainer."""
    return ORPOTrainer(
        args=build_orpo_arguments(orpo_section, training, context, orpo.ORPOConfig),
        data_collator=_Collator(model.tokenizer.pad_token_id),
        **trainer_inputs(_GivenDataset, training, model, data, context),
    )


ORPO = Task(name="orpo", row_kind="preference", section="orpo", build=build_orpo_trainer)

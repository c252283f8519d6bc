"""What the older trainers of trl.experimental, orpo's and cpo's, do otherwise than TRL's stable ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import TrainingArguments

from component.data.collators import PaddingCollator
from component.data.pairs import SIDES, PairCollator, PairDataset
from component.trainers.trl_trainer import TRLTrainer, build_trl_arguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that their interface may change; requirements.txt pins it
    from trl.experimental import cpo, orpo

if TYPE_CHECKING:
    from component.config.schema import TrainingSection
    from component.trainers.task import RunContext

__all__ = ["ExperimentalTrainer", "GivenPairDataset", "SideCollator", "build_experimental_arguments", "cpo", "orpo"]


class GivenPairDataset(PairDataset):
    """Pairs that stay as they are where TRL would tokenize them."""

    def map(self, *args: Any, **kwargs: Any) -> GivenPairDataset:
        """Itself: its rows are tokens already."""
        return self


class SideCollator:
    """Pads each side by itself, as these trainers read them; what both sides have together is there for the counts."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = PaddingCollator(pad_token_id)
        self._pair = PairCollator(pad_token_id)

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Build a batch.

        Args:
            pairs: B of them, as a PairDataset gives them.

        Returns:
            What PairCollator gives, and for each side chosen_input_ids and so on, of shape (B, L).
        """
        sides = {side: self._pad([pair[side] for pair in pairs]) for side in SIDES}
        named = {f"{side}_{name}": value for side, batch in sides.items() for name, value in batch.items()}
        return self._pair(pairs) | named


class ExperimentalTrainer(TRLTrainer):
    """Stands before orpo's or cpo's trainer in the bases of a task's trainer; they are alike but for the loss."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_dpo_data_collator = True  # orpo's warns of collators other than its own

    def _given(self, dataset: GivenPairDataset) -> GivenPairDataset:
        """Changed: these trainers have no _prepare_dataset, and map what they are given."""
        return dataset

    @property
    def _metrics(self) -> dict[str, Any]:
        """What is not logged yet, under the name that TRL's other trainers have for it."""
        return self._stored_metrics


def build_experimental_arguments(
    training: TrainingSection, context: RunContext, arguments_class: type[TrainingArguments], **own: Any
) -> TrainingArguments:
    """Arguments of one of these trainers.

    Args:
        own: those that the other one has not, or otherwise.
    """
    return build_trl_arguments(
        training,
        context,
        arguments_class,
        max_length=training.max_seq_length,  # None would be 512; the data layer has cut what is too long
        max_completion_length=None,
        generate_during_eval=False,
        is_encoder_decoder=None,
        **own,
    )

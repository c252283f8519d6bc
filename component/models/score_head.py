"""Models that give a text one number instead of the next token: what the reward task trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.models.checkpoint import load_weights
from component.models.model_files import ModelSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

#: Tasks whose model ends in a score head.
SCORED_TASKS = ("reward",)
#: Weights that a language model's checkpoint lacks, and those of its own head, which nothing reads.
NEW_WEIGHTS, UNREAD_WEIGHTS = ("score.weight",), ("lm_head.weight", "lm_head.bias")


def load_scored(
    source: ModelSource, config: PretrainedConfig, *, seed: int, pad_token_id: int, **arguments: Any
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load a base model with a score head; a new head is drawn from `seed` alone.

    Args:
        config: from `load_config`; it is changed.
        pad_token_id: the score is read at the last token that is not this one.
        arguments: of from_pretrained.

    Returns:
        The model and notices.

    Raises:
        UserError: the family has no such class, or its weights are not as `load_weights` wants them.
    """
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"model_name_or_path: transformers has no class with a score head for model_type {config.model_type!r}; "
            "train another family on this task"
        )
    config.num_labels = 1
    config.pad_token_id = pad_token_id
    torch.manual_seed(seed)
    model, notices = load_weights(
        source,
        config,
        model_class=AutoModelForSequenceClassification,
        may_lack=NEW_WEIGHTS,
        may_hold=UNREAD_WEIGHTS,
        **arguments,
    )
    return model, notices

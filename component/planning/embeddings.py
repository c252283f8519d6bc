"""What a config does to input embeddings and output head, and what follows for the scores of answers."""

from __future__ import annotations

from collections.abc import Sequence

from component.config.load import Config
from component.planning.shape import ModelShape

#: Modules trained in full beside an adapter whose parameters are counted.
SAVED = ("embed_tokens", "lm_head")
#: Tasks whose trainers Unsloth rewrites so that answers are scored in parts.
SCORED_IN_PARTS = ("dpo", "kto")


def scores_in_parts(config: Config, shape: ModelShape, loader: str) -> bool:
    """Whether Unsloth makes log-probabilities of answers from hidden states and the head's weights, part by part.

    Where it does not, TRL's own loss makes all scores (unsloth 2026.10.9, models/rl_replacements.py,
    _unsloth_dpo_chunked_head): without a plain head, with weights of pairs, and with a loss on the balance of experts,
    which TRL adds for families that have one.
    """
    if loader != "unsloth" or config.model.task_type not in SCORED_IN_PARTS or shape.experts_per_layer:
        return False
    return _has_plain_head(config, shape) and not (config.model.task_type == "dpo" and config.dpo.use_weighting)


def _has_plain_head(config: Config, shape: ModelShape) -> bool:
    """Whether nothing is around the output head; what keeps it in main memory is looked at where scores are made."""
    if config.model.train_mode == "full":
        return True
    saved, targets = _last_parts(config.adapter.modules_to_save), _last_parts(config.adapter.lora_target_modules)
    is_saved = bool(saved & set(SAVED)) if shape.is_tied else SAVED[1] in saved
    return not is_saved and SAVED[1] not in targets and not config.model.new_tokens


def new_rows(config: Config, shape: ModelShape) -> frozenset[str]:
    """What has rows of new tokens that are trained alone: embeddings and head, but for those that are trained whole."""
    if not config.model.new_tokens:
        return frozenset()
    saved = _last_parts(config.adapter.modules_to_save)
    if shape.is_tied and saved & set(SAVED):
        return frozenset()
    scored = {SAVED[1]} if config.model.task_type == "reward" else set()
    return frozenset(SAVED) - saved - scored


def new_row_parameters(config: Config, shape: ModelShape) -> int:
    """Parameters of these rows; tied ones are one. Tokens that the model knows already count here, and have none."""
    matrices = min(len(new_rows(config, shape)), 1 if shape.is_tied else 2)
    return len(config.model.new_tokens) * shape.hidden * matrices


def saved_parameters(names: Sequence[str], shape: ModelShape) -> int:
    """Parameters of embeddings and head that are trained beside an adapter."""
    wanted = _last_parts(names) & set(SAVED)
    return shape.embedding * (1 if shape.is_tied and wanted else len(wanted))


def _last_parts(names: Sequence[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}

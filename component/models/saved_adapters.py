"""Adapters that were saved: loaded onto the base that they were made for, whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.models.adapters import names_of_experts
from component.models.failures import told_as_user_error
from component.models.model_files import ADAPTER_FILE, ModelSource
from component.models.new_rows import make_room_for, save_new_rows_alone
from component.models.saved_modules import train_in_float32

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
#: PEFT's name of models with a score head.
SCORED_MODEL = "SEQ_CLS"


def continue_adapter(model: PreTrainedModel, source: ModelSource) -> tuple[PeftModel, tuple[str, ...]]:
    """Freeze the base and attach the adapter of an earlier run, trainable.

    Returns:
        The model, and notices: what of the config's adapter does not count.

    Raises:
        UserError: see `load_adapter`.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    dtype = model.get_input_embeddings().weight.dtype
    continued, notices = load_adapter(model, source, is_trainable=True)
    train_in_float32(continued, dtype)
    lora = continued.peft_config["default"]
    settings = (
        f"training goes on from the adapter {source.adapter}: its rank {lora.r}, alpha {lora.lora_alpha}, "
        f"dropout {lora.lora_dropout} and targets count, not the config's"
    )
    return continued, (settings, *notices)


def load_adapter(
    model: PreTrainedModel, source: ModelSource, *, is_trainable: bool
) -> tuple[PeftModel, tuple[str, ...]]:
    """Attach a saved adapter to its base, complete or not at all.

    The adapter of a language model fits a model with a score head too: its weights are the start, and the head is new.

    Args:
        model: the base; it gets rows for tokens that the adapter brings.
        source: of the base and the adapter.

    Returns:
        The model and notices.

    Raises:
        UserError: the adapter's files are missing or damaged, or do not fit its adapter_config.json, its base or the
            kind of model.
    """

    subject = f"model_name_or_path: the adapter {source.adapter}"
    if Path(source.adapter).is_dir() and not any((Path(source.adapter) / name).is_file() for name in WEIGHT_FILES):
        raise UserError(f"{subject} has no {WEIGHT_FILES[0]}; copy the whole folder of the adapter")
    config, weights = _read(source, subject)
    notices = _fit_to_head(model, config, weights, source)
    has_grown = make_room_for(model, config, weights)
    fix = f"it was loaded onto {source.base}, the base that its {ADAPTER_FILE} names; check both"
    with warnings.catch_warnings():
        # PEFT only warns of layers that it finds no weights for, and leaves them at their random start.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            with told_as_user_error(subject, fix):
                if notices:
                    loaded, unplaced = _under_new_head(model, config, weights, is_trainable=is_trainable)
                else:
                    loaded, unplaced = _as_saved(model, config, weights, source, is_trainable=is_trainable)
        except UserWarning as warning:
            what = f"lacks weights of layers that its {ADAPTER_FILE} names"
            raise UserError(f"{subject} {what}; {fix}") from warning
    if unplaced:
        what = f"has weights that there is no place for ({len(unplaced)}), {unplaced[0]}"
        raise UserError(f"{subject} {what}; {fix}")
    if has_grown:
        save_new_rows_alone(loaded)
    return loaded, notices


def _read(source: ModelSource, subject: str) -> tuple[LoraConfig, Mapping[str, Tensor]]:
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    with told_as_user_error(subject, "check its files and its base"):
        config = PeftConfig.from_pretrained(source.adapter, revision=source.adapter_revision)
        return config, load_peft_weights(source.adapter, device="cpu", revision=source.adapter_revision)


def _fit_to_head(
    model: PreTrainedModel, config: LoraConfig, weights: Mapping[str, Tensor], source: ModelSource
) -> tuple[str, ...]:
    """Hold the kind of model that an adapter was trained on against the one at hand, and change its config to fit.

    Returns:
        A notice where the model has a score head that the adapter lacks.

    Raises:
        UserError: it belongs to a model with a score head, and this one has none.
    """
    is_scored = hasattr(model, "score")
    if config.task_type == SCORED_MODEL and not is_scored:
        raise UserError(
            f"model_name_or_path: {source.adapter} is an adapter of a reward model, whose head gives a score and no "
            f"tokens; name its base {source.base}"
        )
    if not is_scored or config.task_type == SCORED_MODEL:
        return ()
    paths = [path for path, _ in model.named_modules()]

    def is_here(name: str) -> bool:
        """Whether the model has a module of this name."""
        return any(path == name or path.endswith(f".{name}") for path in paths)

    config.task_type = SCORED_MODEL
    config.modules_to_save = [name for name in config.modules_to_save or () if is_here(name)] or None
    if isinstance(config.trainable_token_indices, dict):
        indices = config.trainable_token_indices
        config.trainable_token_indices = {name: ids for name, ids in indices.items() if is_here(name)} or None
    head = "; its output head is left out" if any(".lm_head." in name for name in weights) else ""
    notice = f"the adapter {source.adapter} of a language model is the start of the reward model's, whose score head"
    return (f"{notice} is new{head}",)


def _as_saved(
    model: PreTrainedModel,
    config: LoraConfig,
    weights: Mapping[str, Tensor],
    source: ModelSource,
    *,
    is_trainable: bool,
) -> tuple[PeftModel, list[str]]:
    """The model with its adapter, and names of saved weights that have no place in it, which PEFT passes over."""
    from peft import PeftModel, get_peft_model_state_dict

    loaded = PeftModel.from_pretrained(
        model, source.adapter, config=config, revision=source.adapter_revision, is_trainable=is_trainable
    )
    if names_of_experts(model) or getattr(model, "_checkpoint_conversion_mapping", None):
        return loaded, []  # of these families PEFT renames weights while it loads them
    known = get_peft_model_state_dict(loaded, save_embedding_layers=False).keys() | loaded.state_dict().keys()
    return loaded, sorted(weights.keys() - known)


def _under_new_head(
    model: PreTrainedModel, config: LoraConfig, weights: Mapping[str, Tensor], *, is_trainable: bool
) -> tuple[PeftModel, list[str]]:
    """As `_as_saved`, for a model whose score head the adapter lacks: that starts as it is in the model."""
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config.inference_mode = not is_trainable
    loaded = get_peft_model(model, config)
    own = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    started = {name: value for name, value in weights.items() if ".lm_head." not in name}
    head = {name: value for name, value in own.items() if ".score." in name}
    if own.keys() - started.keys() - head.keys():
        warnings.warn("Found missing adapter keys", UserWarning, stacklevel=2)
    set_peft_model_state_dict(loaded, {**head, **started})
    return loaded, sorted(started.keys() - own.keys())

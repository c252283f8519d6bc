"""The weights of a run: the model that is trained, and a second one that a task compares it with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from component.config.errors import DeviceMemoryError, UserError
from component.config.schema import ModelSection
from component.models.loaded import LoadedModel
from component.models.tokenizer import load_tokenizer
from component.pipeline.prepare import PreparedRun
from component.registry import LOADERS
from component.runtime.collection import importing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(prepared: PreparedRun) -> LoadedModel:
    """Load the weights with the chosen loader."""
    with importing("model"):
        load = LOADERS.get(prepared.loader.got)
    return load(
        prepared.config.model,
        prepared.config.adapter,
        tokenizer=prepared.tokenizer,
        precision=prepared.precision,
        hardware=prepared.hardware,
        gradient_checkpointing_kwargs=prepared.config.training.gradient_checkpointing_kwargs,
    )


def load_reference(prepared: PreparedRun, name: str | None) -> PreTrainedModel:
    """Load a second model that is not trained: the one that training starts from, or another of the same vocabulary.

    Args:
        name: folder or hub id of that other; None for the start.

    Raises:
        UserError: it cannot be loaded, or its tokens are others.
    """
    config = replace(prepared.config.model, train_mode="full", gradient_checkpointing=False)
    loader = prepared.loader.got
    if name is not None:
        config = replace(config, model_name_or_path=name, model_revision=None, tokenizer_name_or_path=None)
        check_same_tokens(config, prepared.tokenizer)
        loader = "vanilla"
    loaded = LOADERS.get(loader)(
        config,
        prepared.config.adapter,
        tokenizer=prepared.tokenizer,
        precision=prepared.precision,
        hardware=prepared.hardware,
        gradient_checkpointing_kwargs={},
    )
    return loaded.model.requires_grad_(False).eval()


def check_same_tokens(reference: ModelSection, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a reference model with other tokens than the model that is trained.

    Raises:
        UserError: naming a token that differs.
    """
    theirs = load_tokenizer(reference).tokenizer.get_vocab()
    ours = tokenizer.get_vocab()
    token = next((token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)), None)
    if token is not None:
        raise UserError(
            f"reference_model_name_or_path: {reference.model_name_or_path} has another vocabulary than the model: "
            f"{token!r} is {theirs.get(token)} there and {ours.get(token)} here; use a model of the same family"
        )


def load_models(prepared: PreparedRun) -> LoadedModel:
    """Load the weights, and those of a reference that the task needs; lack of device memory becomes advice.

    Raises:
        DeviceMemoryError: with the settings to change.
    """
    import torch

    try:
        model, section = load_model(prepared), prepared.section
        if prepared.task.needs_reference_model(section, prepared.config.training):
            model = replace(model, reference=load_reference(prepared, section.reference_model_name_or_path))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # 16-bit weights came and went between those that stay
        return model
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"out of memory while the model was loaded: {str(error).splitlines()[0]}",
            "run again with train_mode=qlora or a smaller model, or end other programs on this device",
        ) from error

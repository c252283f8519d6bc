"""The layers of a language model by number: which module and which parameters belong to which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.models.language_model import is_tower

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of decoder layers and its name, "model.layers" for most.

    Raises:
        UserError: the model has no list of as many modules as its config.json has layers.
    """
    from torch import nn

    number = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == number and not is_tower(name):
            return name, module
    raise UserError(
        f"model_name_or_path: the {number} layers of this {model.config.model_type} model are not found by number; "
        "leave out what names layers"
    )


def train_last_layers(model: PreTrainedModel, number: int) -> str:
    """Freeze all of a model but its last layers.

    Returns:
        A notice.

    Raises:
        UserError: see `check_trained`.
    """
    name, layers = find_layers(model)
    check_trained(number, len(layers))
    prefixes = tuple(f"{name}.{index}." for index in range(len(layers) - number, len(layers)))
    for path, parameter in model.named_parameters():
        if not path.startswith(prefixes):
            parameter.requires_grad_(False)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return (
        f"the last {number} of {len(layers)} layers are trained, {trained:,} parameters; "
        "embeddings, output head and the other layers stay as they are"
    )


def skip_checkpointing(model: PreTrainedModel, number: int) -> None:
    """Let some decoder layers, evenly spaced, keep their activations although all were set to recompute them.

    Raises:
        UserError: see `check_skipped`.
    """
    _, layers = find_layers(model)
    check_skipped(number, len(layers))
    for index in evenly_spaced(number, of=len(layers)):
        layers[index].gradient_checkpointing = False


def check_skipped(number: int, num_layers: int | None) -> None:
    """Refuse to skip more layers than there are; where their number is not known, nothing is said.

    Raises:
        UserError: with both numbers.
    """
    if num_layers is not None and number > num_layers:
        raise UserError(
            f"checkpoint_skip_layers: got {number}, and the model has {num_layers} layers; use {num_layers} or less"
        )


def check_trained(number: int | None, num_layers: int | None) -> None:
    """Refuse to train more layers than there are; where their number is not known, nothing is said.

    Args:
        number: of the last layers; None for all of the model.

    Raises:
        UserError: with both numbers.
    """
    if number is not None and num_layers is not None and number > num_layers:
        raise UserError(f"freeze_trainable_layers: got {number}, and the model has {num_layers} layers; use fewer")


def evenly_spaced(number: int, *, of: int) -> list[int]:
    """So many of the numbers from 0 on below `of`, the last one among them, as far apart as they go."""
    return [(place + 1) * of // number - 1 for place in range(number)]


def layer_prefixes(model: PreTrainedModel, numbers: Sequence[int], *, key: str) -> tuple[str, ...]:
    """Beginnings of the names of all that belongs to some layers.

    Args:
        numbers: of the layers, from 0.
        key: of the config that named them.

    Raises:
        UserError: the model has no such layer.
    """
    name, layers = find_layers(model)
    beyond = [number for number in numbers if number >= len(layers)]
    if beyond:
        raise UserError(f"{key}: there is no layer {beyond[0]}; the model's layers are 0 to {len(layers) - 1}")
    return tuple(f"{name}.{number}." for number in numbers)

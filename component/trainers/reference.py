"""The reference of a preference task: the model that training starts from, kept without a second copy if possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from component.config.schema import TrainingSection
    from component.models.loaded import LoadedModel


#: Name of the frozen copy of an adapter in TRL.
REFERENCE_ADAPTER = "ref"


@dataclass(frozen=True)
class Reference:
    """How a trainer gets its reference.

    Attributes:
        description: for run.json.
        model: what TRL is given as `ref_model`.
    """

    description: str
    model: nn.Module | None = None


class StandIn(nn.Module):
    """What TRL is given as a reference so that it does not copy a new adapter; `real_reference` takes it away."""


def real_reference(reference: nn.Module | None) -> nn.Module | None:
    """The `ref_model` of a trainer without the stand-in: None switches the adapter off."""
    return None if isinstance(reference, StandIn) else reference


def needs_reference_model(section: Any, training: TrainingSection) -> bool:
    """Whether a second model is loaded: one that the config names, or the start of a full run that precomputes nothing.

    Args:
        section: of the task, with ReferenceKeys.
    """
    if section.reference_model_name_or_path is not None:
        return True
    return training.train_mode == "full" and not section.precompute_ref_log_probs


def choose_reference(section: Any, model: LoadedModel) -> Reference:
    """Decide on the reference of a loaded model.

    Args:
        section: of the task, with ReferenceKeys.
    """
    if model.reference is not None:
        name = section.reference_model_name_or_path
        return Reference(f"the model {name}" if name else "the starting model, loaded a second time", model.reference)
    if model.peft_config is None:
        return Reference("the starting model, whose log-probabilities are computed beforehand")
    if model.continued_adapter is not None:
        # Without its adapter this model is the base of the earlier run, not what that run made of it.
        return Reference("the starting model: its base with a frozen copy of the adapter that training goes on from")
    # TRL would copy the adapter of any PeftModel; a new one is zero, and switching it off gives the same.
    return Reference("the starting model: its base with the adapter switched off", StandIn())


def save_policy_alone(model: nn.Module) -> None:
    """Let checkpoints hold the adapter that is trained, without the frozen copy of its start.

    transformers takes a checkpoint with folders of adapters for one that has all of them there, and loads these alone:
    a resumed run would train on from the start.
    """
    if REFERENCE_ADAPTER in getattr(model, "peft_config", {}):
        model.save_pretrained = partial(model.save_pretrained, selected_adapters=["default"])


def renew_frozen_copy(model: nn.Module) -> None:
    """Make TRL's frozen copy of an adapter equal to the adapter, to the last bit.

    TRL rounds the copy beside a 4-bit base to bfloat16, and passes over the rows of new tokens: it copies what has
    ".default." in its name, and theirs ends in ".default".
    """
    # trl 1.13; delete when its copy is exact.
    parameters = dict(model.named_parameters())
    for name, copy in parameters.items():
        parts = name.split(".")
        if REFERENCE_ADAPTER in parts:
            own = ".".join("default" if part == REFERENCE_ADAPTER else part for part in parts)
            copy.data = parameters[own].data.clone()

"""What every loader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train, whichever loader made it.

    Attributes:
        model: with its adapter attached, where the mode has one.
        tokenizer: the one that the data was prepared with.
        peft_config: the adapter's configuration, None for full training.
        reference: a second model that a task compares with, frozen; None where it needs none.
        continued_adapter: folder or hub id of the adapter that training goes on from, None for a new one.
        moved_start: weights of the new adapter before training, where its start moved them out of the base.
        asked: what the config asked for, by key (`use_unsloth`, `dtype`, `attn_implementation`, ...).
        got: what was built, under the same keys, and the reason where it differs.
        notices: what was changed or ignored on the way, one line each.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    peft_config: PeftConfig | None = None
    reference: PreTrainedModel | None = None
    continued_adapter: str | None = None
    moved_start: Mapping[str, Tensor] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    got: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

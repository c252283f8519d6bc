"""Rotary positions stretched beyond the length that a model was made for (`rope_scaling`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def scale_rope(config: PretrainedConfig, scaling: Mapping[str, Any]) -> None:
    """Write `rope_scaling` into a model's configuration, and the positions that it then has; nothing where it is empty.

    Args:
        scaling: rope_type (linear, dynamic or yarn), factor, and what else transformers knows of that type.

    Raises:
        UserError: the model has no rotary positions of the plain kind.
    """
    if not scaling:
        return
    text = config.get_text_config()
    own = getattr(text, "rope_parameters", None)
    # Families with positions by the kind of layer nest them; those already stretched name another type.
    if not own or own.get("rope_type") != "default":
        raise UserError(
            f"rope_scaling: this {config.model_type} model has no plain rotary positions to scale; leave it out"
        )
    positions = text.max_position_embeddings
    stretched = {**own, **scaling}
    if scaling["rope_type"] == "yarn":
        stretched.setdefault("original_max_position_embeddings", positions)
    text.rope_parameters = stretched
    # Dynamic scaling begins where the original positions end, which it reads here.
    if scaling["rope_type"] != "dynamic":
        text.max_position_embeddings = int(positions * scaling["factor"])

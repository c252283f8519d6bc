"""The load-balancing loss of mixtures of experts, which transformers adds to the loss of each micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def router_loss(outputs: Any) -> Tensor | None:
    """The load-balancing loss of a batch, shape (); None of a model that has none."""
    return outputs.get("aux_loss") if isinstance(outputs, Mapping) else None


def router_part(model: nn.Module, outputs: Any) -> Tensor | float:
    """What the load-balancing loss adds to the loss of a batch: itself times the model's own coefficient.

    Args:
        model: as it was called; wrappers are seen through.
        outputs: of a call with labels.
    """
    loss = router_loss(outputs)
    config = getattr(getattr(model, "module", model), "config", None)
    if loss is None or config is None:
        return 0.0
    return float(getattr(config.get_text_config(), "router_aux_loss_coef", 0.0)) * loss

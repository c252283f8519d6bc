"""Learning rates of their own: for the second matrices of adapters (LoRA+) and for embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from component.config.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class GroupRates:
    """Rates beside `learning_rate`, all of them under the same schedule.

    Attributes:
        lora_b_ratio: LoRA+ (https://arxiv.org/abs/2402.12354): how many times the rate of the first matrices the second
            ones, and vectors, learn at.
        embeddings: the peak rate of input embeddings and output head.
    """

    lora_b_ratio: float | None = None
    embeddings: float | None = None

    def apply(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Split the groups of a fresh optimizer by rate; whatever else a group says stays, its weight decay too.

        PEFT's create_loraplus_optimizer gives the same rates, and knows only optimizers that take groups and a rate.

        Raises:
            UserError: there is a rate for embeddings, and none are trained.
        """
        if self == GroupRates():
            return
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        embeddings = _embedding_parameters(model)
        if self.embeddings is not None and not embeddings:
            raise UserError(
                "embedding_learning_rate: no embeddings are trained; set modules_to_save: [embed_tokens, lm_head]"
            )
        groups = []
        for group in optimizer.param_groups:
            by_rate: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rate = group["lr"]
                if self.embeddings is not None and id(parameter) in embeddings:
                    rate = self.embeddings
                elif self.lora_b_ratio and ("lora_B" in names[id(parameter)] or parameter.ndim == 1):
                    rate *= self.lora_b_ratio
                by_rate.setdefault(rate, []).append(parameter)
            groups += [{**group, "params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
        optimizer.param_groups[:] = groups


def _embedding_parameters(model: nn.Module) -> set[int]:
    """Ids of the trained parameters of input embeddings and output head."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = (base.get_input_embeddings(), base.get_output_embeddings())
    return {
        id(value) for module in modules if module is not None for value in module.parameters() if value.requires_grad
    }

"""Input embeddings that stay in main memory: rows are looked up there, and only those of a batch go to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from component.config.errors import UserError
from component.runtime.distributed import world_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel


class HostLookup(nn.Module):
    """Stands before the class of an embedding in the bases of its own: weight in main memory, results on the device.

    The class, the name and the weight of the embedding stay, so nothing that finds it, hooks into it or saves it sees
    another module. Token ids come back from the device for the lookup: one wait of the host in each forward pass.
    """

    target: torch.device

    def forward(self, input_ids: Tensor) -> Tensor:
        """Rows of `input_ids` (any shape), on the device of the rest of the model."""
        rows = super().forward(input_ids.to("cpu"))
        if self.target.type == "cuda":
            rows = rows.pin_memory()  # the copy to the device is then in order with its other work
        return rows.to(self.target, non_blocking=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HostLookup:
        """Changed: `model.to(device)`, which trainers call once more, leaves it where it is."""
        return self


def check_offload(model: PreTrainedModel) -> None:
    """Refuse to keep input embeddings in main memory where that cannot work.

    Raises:
        UserError: the output head is the same matrix, or several processes train.
    """
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        raise UserError(
            "offload_embedding: this model's output head is its input embeddings (tie_word_embeddings), which the loss "
            "needs on the device; drop offload_embedding"
        )
    if world_size() > 1:
        raise UserError(
            "offload_embedding: torch's DistributedDataParallel takes no model that is partly in main memory; train "
            "with one process, or drop offload_embedding"
        )


def offload_embedding(model: PreTrainedModel, device: torch.device | None = None) -> int:
    """Move the frozen input embeddings of a model to main memory.

    Args:
        device: where their results go; None for where they are.

    Returns:
        Bytes that the device has back.

    Raises:
        UserError: see `check_offload`.
    """
    check_offload(model)
    embedding: Any = model.get_input_embeddings()
    weight = embedding.weight
    target = weight.device if device is None else device
    embedding.to("cpu")
    embedding.__class__ = type(f"Host{type(embedding).__name__}", (HostLookup, type(embedding)), {})
    embedding.target = target
    if target.type == "cuda":
        torch.cuda.empty_cache()
    return weight.numel() * weight.element_size()


def check_frozen(model: nn.Module) -> None:
    """Refuse to train what is in main memory: an adapter that training goes on from may bring rows of embeddings.

    Raises:
        UserError: a trained parameter is there.
    """
    trained = [name for name, value in model.named_parameters() if value.requires_grad and value.device.type == "cpu"]
    if trained:
        raise UserError(
            f"offload_embedding: {trained[0]} is trained, and would be in main memory; drop offload_embedding"
        )


def device_of(model: nn.Module) -> torch.device:
    """The device that a model computes on: that of its first parameter which is not in main memory."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))

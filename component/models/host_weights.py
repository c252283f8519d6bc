"""Input embeddings and output head in main memory: what a batch needs of them goes to the device when it does.

Of the embeddings these are the rows that were looked up; of the head all of it, for as long as scores are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from component.config.errors import UserError
from component.models.preparing import check_one_process, explain_shared_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class HostHead(nn.Module):
    """Stands before the class of an output head: its weight is in main memory, and each reading makes a copy.

    The copy is on the device and lives as long as its reader holds it. To autograd it is a constant.
    """

    target: torch.device

    @property
    def weight(self) -> Tensor:
        """(V, H), on the device of the rest of the model."""
        return self.stored.to(self.target, non_blocking=True)

    @property
    def stored(self) -> Tensor:
        """The weight itself."""
        return self._parameters["weight"]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HostHead:
        """Changed as that of HostLookup."""
        return self


def check_offload(model: PreTrainedModel, key: str = "offload_embedding") -> None:
    """Refuse to keep embeddings or head in main memory where that cannot work.

    Args:
        key: that asks for it.

    Raises:
        UserError: they are the same matrix, there is no head that is a plain linear layer, or several processes train.
    """
    head = model.get_output_embeddings()
    if key == "offload_head":
        _check_head(head)
    if head is not None and head.weight is model.get_input_embeddings().weight:
        raise UserError(explain_shared_head(key))
    check_one_process([key])


def _check_head(head: nn.Module | None) -> None:
    if head is None:
        raise UserError("offload_head: this model has no output head that makes scores of tokens; drop offload_head")
    if type(head) is not nn.Linear:  # quantized, or PEFT's wrapper around one that is trained
        raise UserError(
            f"offload_head: this model's output head is no plain linear layer but {type(head).__name__}; "
            "drop offload_head"
        )


def offload_embedding(model: PreTrainedModel, device: torch.device | None = None) -> None:
    """Move the frozen input embeddings of a model to main memory.

    Args:
        device: where their results go; None for where they are.

    Raises:
        UserError: see `check_offload`.
    """
    check_offload(model)
    embedding: Any = model.get_input_embeddings()
    target = embedding.weight.device if device is None else device
    embedding.to("cpu")
    _stand_before(embedding, HostLookup, target)


def offload_head(model: PreTrainedModel, device: torch.device | None = None) -> None:
    """Move the weight of the frozen output head of a model to main memory; arguments as above.

    Raises:
        UserError: see `check_offload`.
    """
    check_offload(model, "offload_head")
    head: Any = model.get_output_embeddings()
    target = head.weight.device if device is None else device
    stored = head.weight.detach().to("cpu")
    head.weight = nn.Parameter(stored.pin_memory() if target.type == "cuda" else stored, requires_grad=False)
    _stand_before(head, HostHead, target)


def keep_on_host(model: PreTrainedModel, keys: Sequence[str]) -> None:
    """Move what `keys` name of a model to main memory, or leave it there where it was read so.

    Args:
        keys: of offload_embedding and offload_head.

    Raises:
        UserError: see `check_offload`.
    """
    device = device_of(model)
    for key in keys:
        {"offload_embedding": offload_embedding, "offload_head": offload_head}[key](model, device)


def _stand_before(module: Any, kind: type[nn.Module], target: torch.device) -> None:
    module.__class__ = type(f"Host{type(module).__name__}", (kind, type(module)), {})
    module.target = target
    if target.type == "cuda":
        torch.cuda.empty_cache()


def check_frozen(model: nn.Module, keys: Sequence[str]) -> None:
    """Refuse to train what is in main memory: an adapter that training goes on from may bring rows of embeddings.

    Args:
        keys: that keep weights there.

    Raises:
        UserError: a trained parameter is there.
    """
    trained = [name for name, value in model.named_parameters() if value.requires_grad and value.device.type == "cpu"]
    if trained:
        raise UserError(f"{keys[0]}: {trained[0]} is trained, and would be in main memory; drop {' or '.join(keys)}")


def device_of(model: nn.Module) -> torch.device:
    """The device that a model computes on: that of its first parameter which is not in main memory."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))

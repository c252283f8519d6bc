"""Next-token loss in parts: of all the scores over the vocabulary only those of some tokens exist at once.

A model's head is made to hand its input on, and the model's own loss, which gets that input in place of scores, is
computed here. Everything between stays the model's: wrappers, arguments, auxiliary losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from component.models.host_weights import HostHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED_LABEL = -100


class ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of tokens through an output head, and the gradients of both, part by part.

    Gradients are computed in the forward pass, where the scores are, and wait for their factor. They are kept without
    the division by the number of tokens, so that in float16 loss scaling reaches them before they are rounded to 0.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype, chunk: int
    ) -> Tensor:
        """The sum in nats, float32, shape ().

        Args:
            hidden: (N, H).
            weight, bias: of the head, (V, H) and (V,).
            targets: (N,), the token that each row predicts.
            dtype: that matrix products are computed in.
            chunk: rows of a part.
        """
        of_hidden, of_weight, of_bias, *_ = ctx.needs_input_grad
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if of_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
        bias_gradient = torch.zeros_like(bias, dtype=torch.float32) if of_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, wanted, gradient in zip(
                hidden.split(chunk),
                targets.split(chunk),
                hidden_gradient.split(chunk) if of_hidden else [None] * -(-len(hidden) // chunk),
                strict=True,
            ):
                rows = rows.to(dtype)
                loss, errors = _loss_and_errors(linear(rows, matrix, offset).float(), wanted)
                total += loss
                if gradient is not None:
                    gradient.copy_(errors.to(dtype) @ matrix)
                if weight_gradient is not None:
                    weight_gradient += errors.to(dtype).T @ rows
                if bias_gradient is not None:
                    bias_gradient += errors.sum(0)
                del errors  # or it would be there beside the scores of the next part
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times that of the sum."""
        hidden, weight, bias = ctx.saved_tensors
        of_weight, of_bias = ctx.dtypes
        return (
            None if hidden is None else hidden * factor.to(torch.float32),
            None if weight is None else (weight * factor).to(of_weight),
            None if bias is None else (bias * factor).to(of_bias),
            None,
            None,
            None,
        )


def _loss_and_errors(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a part, and the gradient of the scores, written over them; float32, (n, V)."""
    index = targets[:, None]
    scores -= scores.amax(-1, keepdim=True)
    of_target = scores.gather(1, index)
    total = scores.exp_().sum(-1, keepdim=True)
    loss = (total.log() - of_target).sum()
    scores /= total
    scores.scatter_add_(1, index, torch.full_like(of_target, -1.0))
    return loss, scores


def predicted_positions(labels: Tensor) -> Tensor:
    """Positions, in rows laid end to end, whose next token is learned: int64, shape (N,); on the device it waits."""
    learned = torch.zeros_like(labels, dtype=torch.bool)
    learned[:, :-1] = labels[:, 1:] != IGNORED_LABEL
    return learned.flatten().nonzero().flatten()


class ChunkedLoss:
    """Replaces the loss of a causal language model wherever it is called with labels.

    Attributes:
        positions: of the next micro-batch, from `predicted_positions`; None to find them on the device.
    """

    def __init__(self, model: PreTrainedModel, head: nn.Linear, *, chunk_tokens: int) -> None:
        """`head` is `model`'s output head, or what a wrapper of it calls."""
        self.positions: Tensor | None = None
        self.chunk_tokens = chunk_tokens
        self._model, self._head = model, head
        self._is_on, self._handed_on, self._was_called = False, None, False
        self._handles: list[Any] = []
        self._own_loss = getattr(model, "_loss_function", None)

    def install(self, *, compute_dtype: str = "float32") -> str | None:
        """Take the loss over, and prove on a few tokens that the model hands on to its loss what its head gives.

        Args:
            compute_dtype: of the computation, by torch's name.

        Returns:
            Why that is not so; all is as it was then. None where it works.
        """
        self._handles = [
            self._model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._model.register_forward_hook(self._end, always_call=True),
        ]
        self._head.forward = self._hand_on
        self._model.loss_function = self.compute
        obstacle = self._try(getattr(torch, compute_dtype))
        if obstacle is not None:
            self.remove()
        return obstacle

    def remove(self) -> None:
        """Give the model its own loss back."""
        for handle in self._handles:
            handle.remove()
        del self._head.forward
        if self._own_loss is None:
            del self._model._loss_function
        else:
            self._model.loss_function = self._own_loss

    def compute(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Mean loss per supervised token; the signature is that of transformers' `loss_function`.

        Args:
            logits: what the head handed on: last hidden states, (B, L, H).
            labels: (B, L).
            num_items_in_batch: supervised tokens to divide by; None for those of this batch.
        """
        self._was_called = True
        if logits is not self._handed_on:
            raise _ChangedScoresError
        positions = predicted_positions(labels) if self.positions is None else self.positions
        self.positions = None
        targets = labels.flatten().index_select(0, positions + 1)
        rows = logits.flatten(0, 1).index_select(0, positions)
        device, weight, bias = logits.device.type, self._head.weight, self._head.bias
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        if not torch.is_grad_enabled():
            rows, weight, bias = rows.detach(), weight.detach(), None if bias is None else bias.detach()
        loss = ChunkedCrossEntropy.apply(rows, weight, bias, targets, dtype, self.chunk_tokens)
        return loss / (max(len(positions), 1) if num_items_in_batch is None else num_items_in_batch)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._is_on = kwargs.get("labels") is not None

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._is_on, self._handed_on = False, None

    def _hand_on(self, hidden: Tensor) -> Tensor:
        if not self._is_on:
            return type(self._head).forward(self._head, hidden)
        self._handed_on = hidden
        return hidden

    def _try(self, dtype: torch.dtype) -> str | None:
        device = self._head.weight.device
        ids = torch.arange(4, device=device)[None]
        cuda = [device] if device.type == "cuda" else []
        try:
            with (
                torch.random.fork_rng(cuda),
                torch.no_grad(),
                torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32),
            ):
                self._model(input_ids=ids, labels=ids, use_cache=False)
        except _ChangedScoresError:
            return "the model changes its scores between head and loss"
        return None if self._was_called else "the model computes its loss in a way of its own"


class _ChangedScoresError(Exception):
    """The model's loss got something else than its head gave."""


def find_head(model: PreTrainedModel) -> nn.Linear | str:
    """The linear layer that makes a model's scores, or why there is none that could be called in parts."""
    head = model.get_output_embeddings()
    copies = getattr(head, "modules_to_save", None)  # PEFT trains a copy of the whole layer
    if copies:
        head = next(iter(copies.values()))
    if type(head) is not nn.Linear and not isinstance(head, HostHead):
        return f"the output head is no plain linear layer but {type(head).__name__}"
    return head

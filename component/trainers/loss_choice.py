"""How a run computes its next-token loss: in parts, by whom, and why not where it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from component.config.usual import USUAL_LOSS_CHUNK
from component.models.unsloth_import import why_all_scores
from component.trainers.chunked_loss import ChunkedLoss, find_head

if TYPE_CHECKING:
    from transformers import Trainer

    from component.config.schema import TrainingSection
    from component.trainers.task import RunContext


@dataclass(frozen=True)
class LossChoice:
    """What computes the loss.

    Attributes:
        asked: the value of `loss_chunk_tokens`.
        got: tokens whose scores exist at once; None where this framework does not compute the loss.
        reason: why, in words for a person.
    """

    asked: int | None
    got: int | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Its part of run.json."""
        return asdict(self)

    def notices(self) -> list[str]:
        """Say so where the config is not followed."""
        if self.asked is None or self.got is not None:
            return []
        return [f"loss_chunk_tokens: {self.asked} is not used, scores are made for all tokens at once: {self.reason}"]


def choose_loss(
    trainer: Trainer, training: TrainingSection, context: RunContext
) -> tuple[LossChoice, ChunkedLoss | None]:
    """Have a vanilla model compute its loss in parts, where it can.

    Args:
        trainer: built, with the model that it trains.
    """
    asked = training.loss_chunk_tokens
    if context.loader == "unsloth":
        return LossChoice(asked, asked, _unsloth_loss(context)), None
    obstacle = _obstacle(trainer, training, context)
    if obstacle is not None:
        return LossChoice(asked, None, obstacle), None
    model = getattr(trainer.model, "get_base_model", lambda: trainer.model)()
    head = find_head(model)
    if isinstance(head, str):
        return LossChoice(asked, None, head), None
    loss = ChunkedLoss(model, head, chunk_tokens=asked or USUAL_LOSS_CHUNK)
    obstacle = loss.install(compute_dtype=context.precision.compute_dtype)
    if obstacle is not None:
        return LossChoice(asked, None, obstacle), None
    return LossChoice(asked, loss.chunk_tokens, "learned tokens alone, part by part"), loss


def _unsloth_loss(context: RunContext) -> str:
    if context.hardware.kind != "cuda":
        return "Unsloth's own loss"
    obstacle = why_all_scores()
    if obstacle is None:
        return "Unsloth's own loss, of learned tokens alone"
    return f"Unsloth's own loss, which makes scores of all tokens: {obstacle}"


def _obstacle(trainer: Trainer, training: TrainingSection, context: RunContext) -> str | None:
    if context.loader != "vanilla":
        return f"the loader {context.loader} is not known to leave the loss to transformers"
    if trainer.args.use_liger_kernel:
        return "Liger computes it, in parts of its own"
    if training.torch_compile:
        return "a compiled model is one graph, of which it cannot be taken out"
    if training.fsdp or training.deepspeed:
        return "the output head is spread over processes"
    if not trainer.model_accepts_loss_kwargs:
        return "this model class takes no count of tokens"
    return None

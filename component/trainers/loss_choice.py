"""How a run computes its next-token loss: in parts, by whom, and why not where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.config.keys import ADAPTER_MODES
from component.config.usual import USUAL_LOSS_CHUNK
from component.models.unsloth_import import why_all_scores

if TYPE_CHECKING:
    from transformers import Trainer

    from component.config.schema import AdapterSection, ModelSection, TrainingSection
    from component.trainers.chunked_loss import ChunkedLoss
    from component.trainers.task import RunContext

#: Keys of config.json with which families change scores between head and loss, if only by a factor of 1.
SCORE_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")
HEAD = "lm_head"


@dataclass(frozen=True)
class LossChoice:
    """What computes the loss.

    Attributes:
        asked: the value of `loss_chunk_tokens`.
        got: tokens whose scores exist at once; None where another loss decides that, or all of them do.
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
        return [f"loss_chunk_tokens: {self.asked} is not used: {self.reason}"]


def choose_loss(
    trainer: Trainer, training: TrainingSection, context: RunContext
) -> tuple[LossChoice, ChunkedLoss | None]:
    """Have a vanilla model compute its loss in parts, where it can.

    Args:
        trainer: built, with the model that it trains.
    """
    asked = training.loss_chunk_tokens
    if context.loader == "unsloth":
        has_limit = context.hardware.kind == "cuda" and why_all_scores() is None
        return LossChoice(asked, asked if has_limit else None, _unsloth_loss(context)), None
    obstacle = why_whole(training, loader=context.loader, has_liger=trainer.args.use_liger_kernel)
    if obstacle is None and not trainer.model_accepts_loss_kwargs:
        obstacle = "this model class takes no count of tokens"
    if obstacle is not None:
        return LossChoice(asked, None, obstacle), None
    from component.trainers.chunked_loss import ChunkedLoss, find_head

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
        return "Unsloth's own loss, which knows no such limit on a CPU"
    obstacle = why_all_scores()
    if obstacle is None:
        return "Unsloth's own loss, of learned tokens alone"
    return f"Unsloth's own loss, which makes scores of all tokens: {obstacle}"


def check_smoothing(trainer: Trainer) -> None:
    """Refuse label smoothing where transformers' is something else than the loss of the model with smoothed labels.

    Args:
        trainer: built, with the model that it trains.

    Raises:
        UserError: naming the model's class, and the reason.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if trainer.label_smoother is None:
        return
    model = getattr(trainer.model, "get_base_model", lambda: trainer.model)()
    name, reason = type(model).__name__, None
    if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() or not trainer.model_accepts_loss_kwargs:
        reason = "transformers does not smooth the loss of next tokens for this class"
    elif getattr(model.config, "output_router_logits", False):
        reason = "transformers leaves the load balancing of its experts out"
    if reason is not None:
        raise UserError(f"extra_training_args: label_smoothing_factor with {name}: {reason}; drop it")


def why_whole(training: TrainingSection, *, loader: str, has_liger: bool) -> str | None:
    """Why scores are made for all tokens at once, whatever the model; None where it is up to that."""
    if loader != "vanilla":
        return f"the loader {loader} is not known to leave the loss to transformers"
    if has_liger:
        return "Liger computes it, in parts of its own"
    if training.extra_training_args.get("label_smoothing_factor"):
        return "label_smoothing_factor is computed outside of the model, from all scores"
    if training.torch_compile:
        return "a compiled model is one graph, of which it cannot be taken out"
    if training.fsdp or training.deepspeed:
        return "the output head is spread over processes"
    return None


def foresee_whole(model: ModelSection, adapter: AdapterSection, model_config: Mapping[str, Any]) -> str | None:
    """Why the model that will be loaded makes all scores at once, which `ChunkedLoss` then finds out from itself."""
    changed = [key for key in SCORE_CHANGES if model_config.get(key) is not None]
    if changed:
        return f"the model changes its scores between head and loss ({changed[0]})"
    if model.train_mode not in ADAPTER_MODES:
        return None
    targets, saved = (
        {name.rpartition(".")[2] for name in names} for names in (adapter.lora_target_modules, adapter.modules_to_save)
    )
    if HEAD in targets or (model.new_tokens and HEAD not in saved):
        return "the output head has an adapter"
    return None

"""Rules over the losses of preference tasks and what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator

from component.config.choices import DIVERGENCE_LOSSES, LOSSES, MARGIN_LOSSES, MEAN_LOSSES, SMOOTHED_LOSSES
from component.config.errors import Problem
from component.config.keys import LANGUAGE_MODEL_TASKS, SHIPPED_TASKS
from component.config.merged import Merged, Rule
from component.config.schema import schema_fields


def check_loss_names(merged: Merged) -> Iterator[Problem]:
    """The task has each loss, and names it once."""
    task, names = merged["task_type"], merged["loss_type"]
    if task not in LOSSES or names is None:
        return
    place = merged.places["loss_type"]
    unknown = [name for name in names if name not in LOSSES[task]]
    if unknown:
        others = [f"task_type: {other}, which has it, or " for other in LOSSES if unknown[0] in LOSSES[other]]
        fix = f"use {''.join(others[:1])}{', '.join(LOSSES[task])}"
        yield Problem(place, "loss_type", f'{task} has no loss "{unknown[0]}"', fix)
    elif not names or len(set(names)) < len(names):
        yield Problem(place, "loss_type", f"got {names}", "name at least one loss, and each once")


def check_loss_weights(merged: Merged) -> Iterator[Problem]:
    """One weight a loss, none below 0."""
    weights = merged["loss_weights"]
    if merged["task_type"] != "dpo" or weights is None:
        return
    if len(weights) != len(_losses(merged)):
        what = f"loss_weights has {len(weights)} numbers, loss_type {len(_losses(merged))} names"
        yield merged.clash("loss_weights", "loss_type", what, "write one number for each loss")
    if any(weight < 0 for weight in weights) or not any(weights):
        place = merged.places["loss_weights"]
        yield Problem(place, "loss_weights", f"got {weights}", "use numbers of 0 and more, not all of them 0")


def check_loss_settings(merged: Merged) -> Iterator[Problem]:
    """Settings that TRL's losses cannot have."""
    if merged["task_type"] != "dpo":
        return
    losses, smoothing = _losses(merged), merged["label_smoothing"]
    if "exo_pair" in losses and smoothing == 0:
        what = "exo_pair takes the logarithm of label_smoothing, which is 0"
        yield merged.clash("loss_type", "label_smoothing", what, "set label_smoothing: 0.001")
    if "robust" in losses and smoothing >= 0.5:
        what = f"robust divides by 1 - 2 * label_smoothing, and label_smoothing is {smoothing:g}"
        yield merged.clash("loss_type", "label_smoothing", what, "use a label_smoothing below 0.5, such as 0.1")
    undefined = [name for name in losses if name not in DIVERGENCE_LOSSES]
    if merged["f_divergence_type"] != "reverse_kl" and undefined:
        what = f"f_divergence_type {merged['f_divergence_type']} is not defined for the loss {undefined[0]}"
        yield merged.clash("f_divergence_type", "loss_type", what, f"use {', '.join(DIVERGENCE_LOSSES)}")
    sorting = [name for name in losses if name.startswith("aot")]
    if merged["use_weighting"] and sorting:
        what = f"use_weighting weighs pairs, and {sorting[0]} takes them apart"
        yield merged.clash("use_weighting", "loss_type", what, "drop one of them")
    if merged["beta"] == 0 and {"ipo", "sppo_hard"} & set(losses):
        yield merged.clash("beta", "loss_type", "ipo and sppo_hard divide by beta, which is 0", "use a beta above 0")


def check_single_loss(merged: Merged) -> Iterator[Problem]:
    """Only dpo adds up several losses."""
    task = merged["task_type"]
    if task in LOSSES and task != "dpo" and len(_losses(merged)) > 1:
        what = f"{task} has one loss, not {len(_losses(merged))}"
        yield Problem(merged.places["loss_type"], "loss_type", what, "keep one")


def check_kto(merged: Merged) -> Iterator[Problem]:
    """The loss kto estimates a divergence from the other answers of a batch."""
    if merged["task_type"] != "kto" or _losses(merged) != ["kto"]:
        return
    size = merged["per_device_train_batch_size"]
    if size != "auto" and size < 2:
        what = f"kto compares the answers of a micro-batch, and per_device_train_batch_size is {size}"
        fix = "use 2 or more, or loss_type: apo_zero_unpaired"
        yield merged.clash("per_device_train_batch_size", "task_type", what, fix)
    if merged["precompute_ref_log_probs"]:
        what = "the loss kto pairs prompts and answers anew in each batch, so nothing can be computed before"
        fix = "drop precompute_ref_log_probs, or use loss_type: apo_zero_unpaired"
        yield merged.clash("precompute_ref_log_probs", "task_type", what, fix)
    if not merged["desirable_weight"] and not merged["undesirable_weight"]:
        what = "desirable_weight and undesirable_weight are both 0"
        yield merged.clash("desirable_weight", "undesirable_weight", what, "give one of them a weight")


def check_cpo(merged: Merged) -> Iterator[Problem]:
    """Losses that divide by beta have one, and the reward of alphapo is computed from means over tokens alone."""
    if merged["task_type"] != "cpo":
        return
    loss, alpha = _losses(merged)[0], merged["alphapo_alpha"]
    if merged["beta"] == 0 and loss in MEAN_LOSSES:
        what = f"{', '.join(MEAN_LOSSES)} divide by beta, which is 0"
        yield merged.clash("beta", "loss_type", what, "use a beta above 0, such as 2.0")
    if loss == "alphapo" and alpha == 0:
        what = "alphapo with alphapo_alpha 0 is simpo with cpo_alpha 0"
        fix = "set alphapo_alpha: 0.25, or use loss_type: simpo with cpo_alpha: 0"
        yield merged.clash("loss_type", "alphapo_alpha", what, fix)
    if alpha and loss not in MEAN_LOSSES:
        what = f"alphapo_alpha raises probabilities to the power of {-alpha:g}, and {loss} takes those of whole answers"
        yield merged.clash("alphapo_alpha", "loss_type", what, f"use loss_type: {' or '.join(MARGIN_LOSSES)}")


def check_liger(merged: Merged) -> Iterator[Problem]:
    """Liger's fused loss of dpo does a part of what TRL's own does."""
    if merged["task_type"] != "dpo" or merged["use_liger_kernel"] is not True:
        return
    clashes = {
        "loss_type": len(_losses(merged)) > 1,
        "f_divergence_type": merged["f_divergence_type"] != "reverse_kl",
        "precompute_ref_log_probs": merged["precompute_ref_log_probs"],
        "use_weighting": merged["use_weighting"],
        "ld_alpha": merged["ld_alpha"] is not None,
    }
    for key, is_clash in clashes.items():
        if is_clash:
            what = f"use_liger_kernel's fused loss of dpo does not know this {key}"
            yield merged.clash(key, "use_liger_kernel", what, "drop one of them")


def check_smoothing_factor(merged: Merged) -> Iterator[Problem]:
    """transformers smooths labels itself, outside of the model, in its own trainer alone."""
    key, name, task = "extra_training_args", "label_smoothing_factor", merged["task_type"]
    if not merged[key].get(name) or task not in SHIPPED_TASKS:
        return
    if task not in LANGUAGE_MODEL_TASKS:
        fix = f"use label_smoothing with loss_type {', '.join(SMOOTHED_LOSSES.get(task, ()))}"
        yield Problem(
            merged.places[key], key, f"{name} is not read by {task}", fix if task in SMOOTHED_LOSSES else "drop it"
        )
    elif merged["use_unsloth"] is not False:
        what = f"{name} is computed from scores that Unsloth's own loss replaces"
        yield merged.clash(key, "use_unsloth", what, "drop it, or set use_unsloth: false")


def _losses(merged: Merged) -> list[str]:
    """The losses, also where the task's own default stands."""
    defaults = schema_fields()["loss_type"].metadata["default_by_task"]
    return merged["loss_type"] or defaults[merged["task_type"]]


LOSS_RULES: tuple[Rule, ...] = (
    check_loss_names,
    check_loss_weights,
    check_loss_settings,
    check_single_loss,
    check_kto,
    check_cpo,
    check_liger,
    check_smoothing_factor,
)

"""Keys that several preference tasks read, and their sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from component.config.keys import PREFERENCE_TASKS, key
from component.config.usual import BETAS

DPO, CPO, KTO, REWARD, GRPO = ("dpo",), ("cpo",), ("kto",), ("reward",), ("grpo",)
WITH_REFERENCE = (*DPO, *KTO)


@dataclass(frozen=True)
class BetaKeys:
    """How strongly a task pulls towards its reference."""

    beta: float | None = key(
        None,
        "Strength of the pull towards the reference model; the tau of ipo. grpo needs no reference at 0. Of cpo the "
        "scale of the rewards: simpo and alphapo compare means over tokens, and want 2 to 2.5.",
        tasks=(*PREFERENCE_TASKS, *GRPO),
        minimum=0,
        default_by_task={**{task: usual.usual for task, usual in BETAS.items()}, "grpo": 0.0},
    )


@dataclass(frozen=True)
class LossKeys:
    """Which loss of a task's family."""

    loss_type: list[str] | None = key(
        None,
        "The loss, by TRL's name; for dpo also several, which are added up.",
        tasks=(*WITH_REFERENCE, *CPO, *GRPO),
        default_by_task={"dpo": ["sigmoid"], "kto": ["kto"], "cpo": ["sigmoid"], "grpo": ["dapo"]},
        one_or_many=True,
    )


@dataclass(frozen=True)
class SmoothingKeys:
    """How sure the labels are."""

    label_smoothing: float = key(
        0.0,
        "Share of preferences that are taken to be the wrong way round.",
        tasks=(*DPO, *CPO),
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class ReferenceModelKeys:
    """The model that log-probabilities are compared with."""

    reference_model_name_or_path: str | None = key(
        None,
        "Another reference model than the one that training starts from; a second model in memory.",
        tasks=(*WITH_REFERENCE, *GRPO),
        default_note="the model that training starts from: an adapter is switched off, a full run loads it again",
    )


@dataclass(frozen=True)
class ReferenceKeys(ReferenceModelKeys):
    """The same, of a task whose reference sees nothing but the data."""

    precompute_ref_log_probs: bool = key(
        False,
        "Compute the reference's log-probabilities once, before training, so that no reference stays in memory.",
        tasks=WITH_REFERENCE,
    )


@dataclass(frozen=True)
class DropoutKeys:
    """Whether a preference task drops out."""

    disable_dropout: bool = key(
        True,
        "Train without dropout, whatever lora_dropout says, so that answers are compared alike.",
        tasks=(*PREFERENCE_TASKS, *REWARD, *GRPO),
    )


@dataclass(frozen=True)
class DPOSection(BetaKeys, LossKeys, SmoothingKeys, ReferenceKeys, DropoutKeys):
    """Direct preference optimization and its family of losses, under TRL's names."""

    loss_weights: list[float] | None = key(
        None, "Weight of each loss, where loss_type names several.", tasks=DPO, default_note="1 each"
    )
    ld_alpha: float | None = key(
        None,
        "Weight of what a longer answer has beyond the shorter (https://arxiv.org/abs/2409.06411).",
        tasks=DPO,
        minimum=0,
        maximum=1,
        default_note="1",
    )
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = key(
        "reverse_kl", "How far from the reference is measured (https://arxiv.org/abs/2309.16240).", tasks=DPO
    )
    f_alpha_divergence_coef: float = key(0.5, "The alpha of alpha_divergence.", tasks=DPO)
    use_weighting: bool = key(
        False,
        "Weigh pairs by how likely the policy itself is to write them (https://arxiv.org/abs/2406.11827).",
        tasks=DPO,
    )
    discopop_tau: float = key(0.05, "Temperature of the loss discopop.", tasks=DPO, above=0)


@dataclass(frozen=True)
class KTOSection(BetaKeys, LossKeys, ReferenceKeys, DropoutKeys):
    """Kahneman-Tversky optimization on answers that are good or bad, without pairs."""

    desirable_weight: float = key(1.0, "Weight of good answers.", tasks=KTO, minimum=0)
    undesirable_weight: float = key(1.0, "Weight of bad answers.", tasks=KTO, minimum=0)


@dataclass(frozen=True)
class ORPOSection(BetaKeys, DropoutKeys):
    """Odds ratio preference optimization; beta is the weight of the preference beside the sft loss.

    As in TRL and the authors' code, that loss is over prompt and better answer; the preference is over answers alone.
    """


@dataclass(frozen=True)
class CPOSection(BetaKeys, LossKeys, SmoothingKeys, DropoutKeys):
    """Contrastive preference optimization and what TRL computes in its place (simpo, alphapo), without a reference."""

    cpo_alpha: float = key(
        1.0,
        "Weight of the next-token loss on the better answers beside the preference; 0 with simpo is SimPO itself.",
        tasks=CPO,
        minimum=0,
    )
    simpo_gamma: float = key(
        0.5,
        "Margin of rewards that simpo and alphapo aim at; about half of beta.",
        tasks=CPO,
        minimum=0,
    )
    alphapo_alpha: float = key(
        0.0,
        "Shape of rewards, (1 - p^-alpha) / alpha for log p (https://arxiv.org/abs/2501.03884); TRL's alpha.",
        tasks=CPO,
    )


@dataclass(frozen=True)
class RewardSection(DropoutKeys):
    """A reward model: a score head that ranks the better of two answers higher."""

    center_rewards_coefficient: float | None = key(
        None,
        "Weight of a term that keeps scores around 0 (https://arxiv.org/abs/2312.09244); 0.01 is usual.",
        tasks=REWARD,
        minimum=0,
        default_note="no such term",
    )

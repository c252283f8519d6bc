"""Usual values of the settings that decide most, and the limits beyond which `--check` gives a hint.

The page docs/hyperparameters.md shows these numbers with their sources; it is made from this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from component.config.keys import ADAPTER_MODES, PREFERENCE_TASKS


@dataclass(frozen=True)
class Usual:
    """What is usual, and the least and the greatest value that raise no question."""

    low: float
    usual: float
    high: float


@dataclass(frozen=True)
class Rates:
    """Learning rates of a task: with an adapter, and of all parameters."""

    adapter: Usual
    full: Usual

    def of(self, train_mode: str) -> Usual:
        """Those of a mode."""
        return self.adapter if train_mode in ADAPTER_MODES else self.full


#: Task -> learning rates. Adapters want about ten times the rate of full training (LoRA Without Regret).
LEARNING_RATES: Mapping[str, Rates] = {
    "pretrain": Rates(adapter=Usual(1e-5, 2e-4, 1e-3), full=Usual(1e-6, 1e-5, 1e-3)),
    "sft": Rates(adapter=Usual(1e-5, 2e-4, 1e-3), full=Usual(1e-6, 1e-5, 1e-4)),
    "dpo": Rates(adapter=Usual(1e-7, 5e-6, 5e-5), full=Usual(1e-8, 5e-7, 5e-6)),
    "kto": Rates(adapter=Usual(1e-7, 5e-6, 5e-5), full=Usual(1e-8, 5e-7, 5e-6)),
    "orpo": Rates(adapter=Usual(1e-7, 8e-6, 2e-4), full=Usual(1e-8, 8e-6, 5e-5)),
    "cpo": Rates(adapter=Usual(1e-7, 8e-6, 2e-4), full=Usual(1e-8, 1e-6, 1e-5)),
    "reward": Rates(adapter=Usual(1e-6, 1e-4, 1e-3), full=Usual(1e-7, 1e-5, 1e-4)),
    "grpo": Rates(adapter=Usual(1e-7, 5e-6, 2e-4), full=Usual(1e-8, 1e-6, 1e-5)),
}

#: Passes over the same answers after which they are learned by heart rather than from.
MAX_EPOCHS = 3

#: What the adapter's output is multiplied by: lora_alpha / lora_rank, or / sqrt(lora_rank) with use_rslora.
ADAPTER_SCALE = Usual(0.125, 2.0, 4.0)
RSLORA_SCALE = Usual(0.125, 2.0, 8.0)

#: Task -> the pull towards the reference, or of orpo the weight of the preference.
BETAS: dict[str, Usual] = {task: Usual(0.01, 0.1, 1.0) for task in PREFERENCE_TASKS}
#: Losses whose beta multiplies a mean over tokens, so that it is far larger than one that multiplies a sum.
BETAS_OF_MEANS: dict[str, Usual] = {
    "sigmoid_norm": Usual(1.0, 5.0, 20.0), "simpo": Usual(1.0, 2.0, 20.0), "alphapo": Usual(1.0, 2.5, 20.0),
}  # fmt: skip

#: Share of all steps that a warm-up takes at most.
MAX_WARMUP_SHARE = 0.3
#: Answers in a micro-batch from which kto can estimate a divergence.
MIN_KTO_BATCH = 4
#: Completions of a prompt from which grpo learns what is better.
MIN_GENERATIONS = 4
#: Weight of good answers to that of bad ones in kto, both counted with their numbers (equation 8 of the paper).
KTO_BALANCE = Usual(0.75, 1.0, 1.33)

#: Samples from which lengths say something about a data set.
MIN_SAMPLES = 1000
#: max_seq_length in times a length, from which it is said to be far above it.
FAR_ABOVE = 4
#: Optimizer steps below which it matters that packed rows make them fewer.
FEW_STEPS = 100
#: Share of rows that may be cut, and of evaluation rows that may be training rows too.
MAX_SHARE_CUT = 0.05
MAX_SHARE_KNOWN = 0.1

#: Tokens of a part of the vanilla loss: enough for fast matrix products, 0.7 GiB for 128,000 scores of each.
USUAL_LOSS_CHUNK = 1024

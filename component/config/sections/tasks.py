"""The section of answers that are sampled while training."""

from __future__ import annotations

from dataclasses import dataclass

from component.config.keys import key


@dataclass(frozen=True)
class GenerationSection:
    """Sample answers at evaluations; the section of the sft task."""

    num_eval_generations: int = key(
        0,
        "How many evaluation prompts are answered and logged at each evaluation.",
        tasks=("sft",),
        minimum=0,
        cosmetic=True,
    )
    generation_max_new_tokens: int = key(
        128, "Longest sampled answer in tokens.", tasks=("sft",), above=0, cosmetic=True
    )

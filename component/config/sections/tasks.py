"""The sections of single tasks."""

from __future__ import annotations

from dataclasses import dataclass

from component.config.keys import PREFERENCE_TASKS, key


@dataclass(frozen=True)
class PreferenceSection:
    """Keys of preference tasks, accepted so that existing configs pass the check; their tasks are still to come."""

    beta: float = key(
        0.1, "Strength of the pull towards the reference model.", tasks=PREFERENCE_TASKS, minimum=0, reserved=True
    )
    max_prompt_length: int = key(512, "Longest prompt in tokens.", tasks=PREFERENCE_TASKS, above=0, reserved=True)


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

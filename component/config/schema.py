"""Every key that a train_args file may hold: its type, default, meaning, limits, and who reads it.

The flat namespace of a config splits into frozen sections, and each builder takes only its own. The sections are the
only home of defaults; where None stands for a default that depends on other keys, `component.config.rules` resolves it.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from component.config.sections.adapter import AdapterSection
from component.config.sections.data import DataSection
from component.config.sections.grpo import GRPOSection
from component.config.sections.model import ModelSection
from component.config.sections.preference import CPOSection, DPOSection, KTOSection, ORPOSection, RewardSection
from component.config.sections.run import RunSection
from component.config.sections.tasks import GenerationSection
from component.config.sections.training import TrainingSection

SECTIONS: dict[str, type] = {
    "model": ModelSection,
    "adapter": AdapterSection,
    "data": DataSection,
    "dpo": DPOSection,
    "kto": KTOSection,
    "orpo": ORPOSection,
    "cpo": CPOSection,
    "reward": RewardSection,
    "grpo": GRPOSection,
    "generation": GenerationSection,
    "run": RunSection,
    "training": TrainingSection,
}

#: Keys of a file that are about the file itself.
FILE_KEYS = ("base", "$schema")


def schema_fields() -> dict[str, Any]:
    """Every key with its dataclass field, in the order of the sections; a shared key appears once."""
    return {item.name: item for section in SECTIONS.values() for item in fields(section)}


@cache
def key_types() -> dict[str, Any]:
    """The annotation of every key."""
    return {name: hint for section in SECTIONS.values() for name, hint in get_type_hints(section).items()}

"""The table of families against the installed transformers and the tables beside it."""

from __future__ import annotations

import re
from collections import Counter

from transformers import CONFIG_MAPPING

from component.models.families import FAMILIES, checkpoints, settings_for_size
from component.models.tiny import ARCHITECTURES
from component.registry import TEMPLATE_NAMES

#: Architectures of the table that cannot be made in tiny sizes and trained on a CPU -> why.
NOT_TRIED: dict[str, str] = {}


def test_native_families_are_those_that_transformers_has() -> None:
    assert [family.title for family in FAMILIES if family.is_native is not (family.model_type in CONFIG_MAPPING)] == []
    assert sum(not family.is_native for family in FAMILIES) == 10


def test_every_native_architecture_is_tried() -> None:
    """tests/smoke/test_families.py trains a step of each."""
    native = {family.model_type for family in FAMILIES if family.is_native}
    assert native == set(ARCHITECTURES) | set(NOT_TRIED)


def test_names_and_ids() -> None:
    every = [checkpoint for native in (True, False) for _, checkpoint in checkpoints(is_native=native)]
    assert [name for name, count in Counter(item.name for item in every).items() if count > 1] == []
    assert [item.hub_id for item in every if not re.fullmatch(r"[\w.-]+/[\w.-]+", item.hub_id)] == []
    assert [item.name for item in every if not re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", item.name)] == []
    assert {item.template for item in every} <= {None, *TEMPLATE_NAMES}
    assert all(0.1 < item.num_billions < 100 for item in every)


def test_base_models_have_a_named_template_and_chat_models_their_own() -> None:
    named = {item.name: item.template_name for _, item in checkpoints() if not item.is_base and item.template}
    # Vicuna's tokenizer has none, and Gemma's own refuses system messages.
    assert named == {
        "vicuna-7b": "vicuna", "vicuna-13b": "vicuna", "gemma-2b": "gemma", "gemma-7b": "gemma", "gemma2-9b": "gemma",
    }  # fmt: skip
    assert {item.template_name for _, item in checkpoints() if item.is_base} == {"default", "chatml"}


def test_larger_models_take_smaller_batches_of_the_same_size() -> None:
    sizes = [settings_for_size(billions, "qlora").get("per_device_train_batch_size", 4) for billions in (7, 14, 70)]
    assert sizes == [4, 2, 1]
    assert settings_for_size(10, "lora") == {}
    assert settings_for_size(32.8, "qlora")["learning_rate"] == 1e-4
    assert settings_for_size(0.5, "full") == {"learning_rate": 2e-5}

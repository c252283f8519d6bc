"""A tiny Llama folder and the section that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from component.config.schema import AdapterSection, ModelSection
from component.models.loaded import LoadedModel
from component.models.tiny import Shape, make_tiny_model
from component.runtime.hardware import Hardware

MACHINES = {
    "cpu": Hardware("cpu", "test CPU", 2**34, 2**33, None, False, 1),
    "fast cpu": Hardware("cpu", "fast CPU", 2**34, 2**33, None, True, 1),
    "ampere": Hardware("cuda", "test A100", 2**36, 2**36, (8, 0), True, 1),
    "turing": Hardware("cuda", "test T4", 2**34, 2**34, (7, 5), False, 1),
    "pascal": Hardware("cuda", "test P100", 2**34, 2**34, (6, 0), False, 1),
}


@pytest.fixture(scope="session")
def machines() -> dict[str, Hardware]:
    """Descriptions of hardware by a short name."""
    return MACHINES


@pytest.fixture(scope="session")
def cpu() -> Hardware:
    """A CPU without fast bfloat16."""
    return MACHINES["cpu"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama (untied head) and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 4, encoding="utf-8")
    shape = Shape(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    make_tiny_model(folder / "model", shape=shape, seed=0, texts=[text])
    return folder / "model"


@pytest.fixture
def section(tiny_model: Path) -> Callable[..., ModelSection]:
    """Build a ModelSection for the tiny model, with changes."""

    def build(**changes: Any) -> ModelSection:
        values: dict[str, Any] = {"model_name_or_path": str(tiny_model), "max_seq_length": 64}
        return ModelSection(**{**values, **changes})

    return build


@pytest.fixture
def adapter() -> AdapterSection:
    return AdapterSection(lora_rank=4, lora_alpha=8)


@pytest.fixture
def load(section: Callable[..., ModelSection], adapter: AdapterSection, cpu: Hardware) -> Callable[..., LoadedModel]:
    """Load the tiny model as it is or with changes of the section, with the vanilla loader."""

    from component.models.precision import resolve_precision
    from component.models.tokenizer import load_tokenizer
    from component.models.vanilla import load_vanilla

    def build(adapter_section: AdapterSection = adapter, *, hardware: Hardware = cpu, **changes: Any) -> LoadedModel:
        model = section(**changes)
        return load_vanilla(
            model,
            adapter_section,
            tokenizer=load_tokenizer(model).tokenizer,
            precision=resolve_precision(model, hardware),
            hardware=hardware,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )

    return build

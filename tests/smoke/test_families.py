"""A tiny model of every native architecture trains a QLoRA step on real 4-bit layers, with the vanilla loader."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from component.artifacts.metrics import read_metrics
from component.config.load import load_config
from component.models.adapters import linear_layers, names_of_experts
from component.models.inference import load_for_inference
from component.models.language_model import is_tower
from component.models.loaded import LoadedModel
from component.models.quantization import four_bit_layers
from component.models.tiny import ARCHITECTURES, Shape, make_tiny_model
from component.models.tiny_families import TINY_FAMILIES
from component.pipeline import run
from component.pipeline.load_models import load_model
from component.pipeline.prepare import prepare

VISION_LANGUAGE = [name for name, sizes in TINY_FAMILIES.items() if "vision_config" in sizes]


WEIGHTS = "model.safetensors"
IDS = torch.tensor([[3, 14, 15, 92, 65]])


def load(settings: Mapping[str, Any]) -> LoadedModel:
    """The model of a run, by the run's own path, before its first step."""
    return load_model(prepare(load_config({**settings, "output_dir": settings["output_dir"] + "-unused"})))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    turns = [{"human": f"count to {number}", "assistant": "one two three"[: 3 + 2 * number]} for number in range(4)]
    path.write_text("".join(json.dumps({"conversation": [turn]}) + "\n" for turn in turns), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    make_tiny_model(folder, shape=Shape(vocab_size=320), seed=0, texts=[rows])
    return folder


@pytest.fixture
def settings(family: str, tokenizer: Path, rows: Path, tmp_path: Path) -> dict[str, Any]:
    model = tmp_path / "model"
    make_tiny_model(model, shape=Shape(vocab_size=320), seed=0, tokenizer=tokenizer, model_type=family)
    return {
        "model_name_or_path": str(model),
        "train_file": str(rows),
        "output_dir": str(tmp_path / "run"),
        "train_mode": "qlora",
        "use_cpu": True,
        "bf16": False,
        "max_seq_length": 128,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "lora_rank": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "save_strategy": "no",
        "tokenize_num_workers": 1,
    }


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_one_qlora_step(settings: dict[str, Any]) -> None:
    """The language model's linear layers, and no others, are 4-bit and adapted; each adapter learns and loads again."""
    result = run(settings)
    assert math.isfinite(result.metrics["first_loss"])
    assert result.global_step == 1

    untrained = load(settings).model
    base = untrained.get_base_model()
    head, reserved = base.get_output_embeddings(), names_of_experts(base)
    linear = {name: layer for name, layer in linear_layers(base).items() if "lora_" not in name}
    inside = {name for name, layer in linear.items() if layer is not head and not is_tower(name)}
    assert set(four_bit_layers(base)) == inside
    adapted = {name.removesuffix(".base_layer") for name in inside if name.endswith(".base_layer")}
    assert adapted == {name.removesuffix(".base_layer") for name in inside if name.split(".")[-1] not in reserved}

    saved = load_file(result.output_dir / "adapter_model.safetensors")
    assert set(saved) == {f"base_model.model.{name}.lora_{part}.weight" for name in adapted for part in "AB"}
    assert [name for name, weight in saved.items() if ".lora_B." in name and not weight.any()] == []

    trained = load({**settings, "model_name_or_path": str(result.output_dir)}).model
    answering, _ = load_for_inference(str(result.output_dir), device="cpu")
    with torch.no_grad():
        logits = [model.eval()(input_ids=IDS).logits for model in (trained, answering, untrained)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)
    assert not torch.allclose(logits[0], logits[2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", VISION_LANGUAGE)
def test_training_on_text_leaves_the_towers_alone(family: str, settings: dict[str, Any]) -> None:
    """In full training too: they are frozen, never called, and saved as they were."""
    settings["train_mode"] = "full"
    result = run(settings)
    before, after = (
        load_file(Path(folder) / WEIGHTS) for folder in (settings["model_name_or_path"], result.output_dir)
    )
    towers = {name for name in before if is_tower(name)}
    learned = {name for name in after if not torch.equal(before[name], after[name])}
    assert len(towers) > 5
    assert len(learned) > 15
    assert not learned & towers
    # Qwen3.5 has a class for its language model alone.
    assert towers & set(after) == (set() if family == "qwen3_5" else towers)

    model = load(settings).model
    calls = []
    for name, module in model.named_modules():
        if is_tower(name):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert calls == []
    assert {name for name, value in model.named_parameters() if value.grad is None} == {
        name for name, _ in model.named_parameters() if is_tower(name)
    }


@pytest.mark.parametrize("family", VISION_LANGUAGE)
def test_loss_is_a_mean_over_the_tokens_of_all_micro_batches(settings: dict[str, Any]) -> None:
    """Some of these classes say that they take no count of tokens: a mean of unequal micro-batches would come of it."""
    settings |= {"train_mode": "lora"}
    whole, split = (
        read_metrics(run({**settings, **sizes, "output_dir": f"{settings['output_dir']}-{number}"}).output_dir)[0]
        for number, sizes in enumerate(({}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}))
    )
    assert split["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert split["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)

"""What the planner advises after a run: by the memory that was left, with the keys that exist."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from component.config.load import load_config
from component.models.precision import resolve_precision
from component.pipeline import faster_settings
from component.pipeline.choose_loader import LoaderChoice
from component.pipeline.faster_settings import room_bytes
from component.pipeline.settle_run import device_room
from component.planning.choice import room_on
from component.planning.gpus import CONTEXT_BYTES, Gpu
from component.planning.memory import MemoryPlan
from component.planning.plan import judge
from component.runtime.hardware import Hardware

GIB = 2**30
H200 = Hardware("cuda", "NVIDIA H200", 140 * GIB, 139 * GIB, (9, 0), True, 1)
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.fixture
def advise(tmp_path: Path):
    """`advise(peak GiB, loader, **settings)`: the overrides that are found, with the share of time that each saves."""

    def find(peak: float, loader: LoaderChoice, **settings: Any) -> dict[str, float]:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8")
        config = load_config(
            {"model_name_or_path": str(tmp_path), "train_file": "rows.jsonl", "output_dir": str(tmp_path / "run"),
             "max_seq_length": 2048, "per_device_train_batch_size": 4, "packing": True, **settings}
        )  # fmt: skip
        lengths = np.full(4000, min(330, config.training.max_seq_length))
        prepared = SimpleNamespace(
            config=config, hardware=H200, loader=loader, model_config=LLAMA_8B, auto={},
            precision=resolve_precision(config.model, H200),
            data=SimpleNamespace(train=SimpleNamespace(lengths=lengths, num_supervised_tokens=lengths)),
        )  # fmt: skip
        room = room_bytes(prepared, round(peak * GIB))
        found = faster_settings.faster_settings(prepared, round(peak * GIB), room=room)
        return {finding.fix: finding.gain for finding in found if finding.gain > 0.01 and finding.extra_bytes <= room}

    return find


@pytest.mark.parametrize("cap", [16, None])
def test_room_is_what_auto_may_take(cap: float | None) -> None:
    """With less free than `auto` leaves, what is advised would be a tight plan."""
    config = load_config({"model_name_or_path": "m", "train_file": "t", "output_dir": "o", "max_memory_gib": cap})
    room = room_bytes(SimpleNamespace(config=config, hardware=H200), 9 * GIB) + 9 * GIB
    assert room == device_room(config, H200) == room_on(cap * GIB if cap else H200.free_memory_bytes + CONTEXT_BYTES)
    card = Gpu("card", cap * GIB if cap else H200.total_memory_bytes, None, None, 0)
    assert judge(MemoryPlan((), "loss", room, room, 0), card) == "fits"


UNSLOTH = LoaderChoice("auto", "unsloth", "")
VANILLA = LoaderChoice(False, "vanilla", "use_unsloth: false")


def test_recomputation_that_was_not_needed(advise) -> None:
    """An 8B shape at 2048 x 4 takes 37 GiB without it, and 10,783 tokens/s become 15,286: 29 % of the time."""
    found = advise(9, UNSLOTH, use_unsloth="auto", optim="adamw_torch_fused")
    assert found["gradient_checkpointing=false"] == pytest.approx(0.29, abs=0.06)
    assert "gradient_checkpointing=false" not in advise(9, UNSLOTH, gradient_checkpointing=False)


def test_no_advice_that_does_not_fit(advise) -> None:
    assert "gradient_checkpointing=false" not in advise(130, UNSLOTH)
    assert "gradient_checkpointing=false" in advise(9, UNSLOTH, gradient_accumulation_steps=2)


def test_kernels_that_were_not_used(advise, monkeypatch) -> None:
    monkeypatch.setattr(faster_settings, "find_spec", lambda name: name)
    assert advise(20, VANILLA)["use_unsloth=true"] > 0.2
    fused, plain = (advise(20, VANILLA, lora_dropout=0, fused_lora=fuses) for fuses in (True, False))
    assert fused["use_unsloth=true"] > plain["use_unsloth=true"] + 0.05  # Unsloth fuses adapters, vanilla never does
    fallback = LoaderChoice(True, "vanilla", "bnb_4bit_quant_type fp4 is not offered by Unsloth", is_fallback=True)
    assert "bnb_4bit_quant_type=nf4" in advise(20, fallback, bnb_4bit_quant_type="fp4")
    assert not any("unsloth" in fix for fix in advise(9, UNSLOTH))
    monkeypatch.setattr(faster_settings, "find_spec", lambda name: None)
    assert "pip install --no-deps -r requirements-unsloth.txt" in advise(20, VANILLA)


def test_no_advice_of_a_loader_that_the_run_would_not_get(advise, monkeypatch) -> None:
    """The model has 8,192 positions, and Unsloth would rescale them; the other keys can be given up."""
    monkeypatch.setattr(faster_settings, "find_spec", lambda name: name)
    stretched = {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "per_device_train_batch_size": 1}
    assert not any("unsloth" in fix for fix in advise(20, VANILLA, max_seq_length=16_384, **stretched))
    fix = "use_unsloth=true rope_scaling={} bnb_4bit_use_double_quant=true"
    assert fix in advise(20, VANILLA, bnb_4bit_use_double_quant=False, **stretched)


def test_an_optimizer_that_goes_from_tensor_to_tensor(advise) -> None:
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 1, "max_seq_length": 512}
    assert "optim=adamw_torch_fused" in advise(9, UNSLOTH, optim="paged_adamw_32bit", **settings)
    assert "optim=adamw_torch_fused" not in advise(9, UNSLOTH, optim="adamw_torch_fused", **settings)


def test_micro_batches_that_wait_for_the_host(advise) -> None:
    settings = {"per_device_train_batch_size": 1, "max_seq_length": 256, "gradient_accumulation_steps": 4}
    found = advise(9, VANILLA, optim="adamw_torch_fused", **settings)
    assert found["per_device_train_batch_size=2 gradient_accumulation_steps=2"] > 0.1
    assert not any(fix.startswith("per_device") for fix in advise(9, UNSLOTH))

"""Plans, their advice and a run have one account of what Unsloth can load."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.choose_loader import choose_loader
from component.pipeline.plan_inputs import expected_loader, imagined_hardware
from component.pipeline.plan_run import compare_cards, plan_config
from component.planning.gpus import GIB, GPUS, Gpu

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    "max_position_embeddings": 8192,
}  # fmt: skip
EIGHT_BIT = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
FOUR_BIT = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
YARN = {"rope_type": "yarn", "factor": 2.0}
ADAPTER = {"base_model_name_or_path": "PLACE", "peft_type": "LORA", "target_modules": ["q_proj"]}
PASCAL = Gpu("P100", 16 * GIB, (6, 0), None, None)


@pytest.fixture
def load(tmp_path: Path):
    """`load(use_unsloth=..., files={...}, is_adapter=..., **keys)`: a config, and the config.json of its model."""

    def build(*, files: dict[str, Any] | None = None, is_adapter: bool = False, **keys: Any):
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        content = {**CONFIG, **(files or {})}
        (base / "config.json").write_text(json.dumps(content))
        adapter = tmp_path / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": str(base)}))
        name = adapter if is_adapter else base
        return load_config({"model_name_or_path": str(name), "train_file": "d", "output_dir": "o", **keys}), content

    return build


#: Settings, the card, and why Unsloth is not used; None where it is.
CASES = [
    ({}, "h200", None),
    ({"max_seq_length": 8192}, "h200", None),
    ({"files": FOUR_BIT, "bnb_4bit_quant_type": "fp4"}, "h200", None),
    ({"train_mode": "lora", "bnb_4bit_quant_type": "fp4"}, "h200", None),
    ({"bnb_4bit_quant_type": "fp4"}, "h200", "bnb_4bit_quant_type fp4 is not offered"),
    ({"bnb_4bit_use_double_quant": False}, "h200", "bnb_4bit_use_double_quant false is not offered"),
    ({"rope_scaling": YARN}, "h200", "rope_scaling is not offered"),
    ({"max_seq_length": 16_384}, "h200", "max_seq_length 16384 exceeds the model's 8192 positions"),
    ({"files": EIGHT_BIT}, "h200", "the checkpoint is quantized to 8 bit"),
    ({"is_adapter": True}, "h200", "training goes on from the adapter"),
    ({"task_type": "reward"}, "h200", "has no score head"),
    ({"files": {"model_type": "smollm3"}}, "h200", "model family 'smollm3'"),
    ({}, "p100", "needs compute capability 7.0"),
]  # fmt: skip


@pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed")
@pytest.mark.parametrize("asked", [True, "auto", False, "require"])
@pytest.mark.parametrize(("settings", "card", "reason"), CASES)
def test_a_plan_has_the_loader_of_the_run(load, monkeypatch, settings, card, reason, asked) -> None:
    for name in ("transformers", "trl", "peft"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    config, model_config = load(use_unsloth=asked, **settings)
    hardware = imagined_hardware(PASCAL if card == "p100" else GPUS[card])
    if asked == "require" and reason is not None:
        for refused in (
            lambda: choose_loader(config.model, config.model.task_type, hardware),
            lambda: expected_loader(config, model_config, hardware),
        ):
            with pytest.raises(UserError, match=f"require cannot be met: .*{reason}"):
                refused()
        return
    expected = expected_loader(config, model_config, hardware)
    assert expected == choose_loader(config.model, config.model.task_type, hardware)
    assert expected.got == ("unsloth" if reason is None and asked is not False else "vanilla")
    if asked is True and reason is not None:
        assert reason in expected.reason and expected.is_fallback


def test_a_plan_tells_that_unsloth_is_not_what_it_is_of(load) -> None:
    config, _ = load(use_unsloth=True, bnb_4bit_quant_type="fp4")
    planned = plan_config(config, "h200")
    assert (planned.setting.loader, planned.plan.workload.loader) == ("vanilla", "vanilla")
    said = "use_unsloth: true falls back to the vanilla loader: bnb_4bit_quant_type fp4 is not offered by Unsloth"
    assert said in planned.notices
    plain, _ = load(bnb_4bit_quant_type="fp4")
    assert planned.plan == plan_config(plain, "h200").plan
    assert not any("falls back" in notice for notice in plan_config(plain, "h200").notices)


@pytest.mark.parametrize(
    ("positions", "settings", "is_offered"),
    [
        (16_384, {}, True),
        (16_384, {"bnb_4bit_quant_type": "fp4"}, False),
        (16_384, {"model_loader": "vanilla"}, False),
        (8192, {}, False),
    ],
)
def test_other_cards_are_advised_of_loaders_that_they_get(load, positions, settings, is_offered) -> None:
    """Unsloth is what a T4 has room for."""
    keys = {"max_seq_length": 16_384, "per_device_train_batch_size": 1, "packing": True, **settings}
    config, _ = load(files={"max_position_embeddings": positions}, **keys)
    cards = compare_cards(plan_config(config, "h200").plan, config)
    assert any("use_unsloth=true" in (card.overrides or ()) for card in cards) is is_offered

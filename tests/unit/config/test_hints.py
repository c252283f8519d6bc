"""Hints that need the config alone: each is given where the choice is odd, and not beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from component.config.choices import HINT_KEYS, LOSSES
from component.config.hint import Hint, say_rate
from component.config.hints import HINTS
from component.config.keys import MODES, PREFERENCE_TASKS, SHIPPED_TASKS
from component.config.load import load_config
from component.config.schema import schema_fields
from component.config.usual import BETAS, BETAS_OF_MEANS, LEARNING_RATES
from component.pipeline.describe import describe_check
from component.pipeline.hints import check_hints

OWN = {"model_name_or_path": "m", "train_file": "d.jsonl", "output_dir": "o"}


#: What a task cannot do without.
NEEDED = {"grpo": {"reward_functions": "length"}}


def hints(**values: Any) -> list[str]:
    return [str(hint).removeprefix("config: ") for hint in check_hints(load_config({**OWN, **values}))]


#: Settings of a hint, the hint, and changes that make it go away.
CASES: list[tuple[dict[str, Any], str, list[dict[str, Any]]]] = [
    (
        {"learning_rate": 2e-3},
        "learning_rate: 0.002 is far above what sft with qlora is trained with; 2e-4 is usual",
        [{"learning_rate": 1e-3}, {"optim": "sgd"}, {"optim": "lion_8bit"}, {"accepted_hints": "learning_rate"}],
    ),
    (
        {"learning_rate": 2e-4, "train_mode": "full"},
        "learning_rate: 2e-4 is far above what sft with full is trained with; 1e-5 is usual",
        [{"train_mode": "lora"}, {"learning_rate": 1e-4}],
    ),
    (
        {"learning_rate": 2e-4, "task_type": "dpo"},
        "learning_rate: 2e-4 is far above what dpo with qlora is trained with: it is a rate of sft; 5e-6 is usual",
        [{"task_type": "sft"}, {"learning_rate": 5e-5}],
    ),
    (
        {"learning_rate": 5e-6, "train_mode": "lora"},
        "learning_rate: 5e-6 is far below what sft with lora is trained with; adapters want about ten times the rate "
        "of full training; 2e-4 is usual",
        [{"train_mode": "full"}, {"task_type": "dpo"}],
    ),
    (
        {"num_train_epochs": 4},
        "num_train_epochs: after 3 of 4 passes answers are mostly learned by heart; use 1 to 3, or watch eval_loss "
        "with early_stopping_patience",
        [
            {"num_train_epochs": 3},
            {"max_steps": 10},
            {"task_type": "pretrain"},
            {"eval_split": 0.1, "early_stopping_patience": 2},
        ],
    ),
    (
        {"lora_rank": 16, "lora_alpha": 128},
        "lora_alpha: lora_alpha / lora_rank multiplies the adapter's output by 8; 0.125 to 4 is usual",
        [{"lora_alpha": 64}, {"train_mode": "full"}],
    ),
    (
        {"lora_rank": 256, "lora_alpha": 16},
        "lora_alpha: lora_alpha / lora_rank multiplies the adapter's output by 0.0625; 0.125 to 4 is usual",
        [{"lora_rank": 128}, {"use_rslora": True}],
    ),
    (
        {"lora_rank": 64, "lora_alpha": 128, "use_rslora": True},
        "lora_alpha: lora_alpha / sqrt(lora_rank) multiplies the adapter's output by 16; 0.125 to 8 is usual; with "
        "use_rslora an alpha need not grow with the rank, 16 does for most",
        [{"use_rslora": False}, {"lora_alpha": 64}],
    ),
    (
        {"lora_target_modules": ["q_proj", "v_proj"]},
        "lora_target_modules: adapters on attention alone learn less than those on all linear layers, at any rank; "
        "use all-linear",
        [{"lora_target_modules": ["q_proj", "down_proj"]}, {"lora_target_modules": "all-linear"}],
    ),
    (
        {"use_dora": True, "use_unsloth": True},
        "use_dora: DoRA loses Unsloth's fused LoRA kernels, and with them most of its speed; drop it, or set "
        "use_unsloth: false",
        [{"use_unsloth": False}, {"use_dora": False}],
    ),
    (
        {"task_type": "dpo", "lora_dropout": 0.05},
        "lora_dropout: 0.05 has no effect: dpo trains without dropout; drop it, or set disable_dropout: false",
        [{"disable_dropout": False}, {"task_type": "sft"}],
    ),
    (
        {"max_steps": 50, "warmup_steps": 50},
        "warmup_steps: the run of 50 steps ends within its warm-up of 50, below its learning rate; use a share such "
        "as 0.03",
        [{"warmup_steps": 5}, {"max_steps": -1}, {"lr_scheduler_type": "constant"}],
    ),
    (
        {"warmup_steps": 0.5},
        "warmup_steps: 50% of the run is a warm-up, below its learning rate; use a share such as 0.03",
        [{"warmup_steps": 0.3}, {"warmup_steps": 500}],
    ),
    (
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1},
        "per_device_train_batch_size: each step learns from a single row, so gradients are mostly noise; set "
        "gradient_accumulation_steps: 16",
        [{"gradient_accumulation_steps": 2}, {"packing": "auto"}],
    ),
    (
        {"per_device_train_batch_size": "auto", "global_batch_size": 1},
        "per_device_train_batch_size: each step learns from a single row, so gradients are mostly noise; set "
        "global_batch_size: 16",
        [{"global_batch_size": 2}],
    ),
    (
        {"task_type": "kto", "per_device_train_batch_size": 2},
        "per_device_train_batch_size: kto estimates a divergence from the answers of a micro-batch, and 2 say little; "
        "use 4 or more",
        [{"per_device_train_batch_size": 4}, {"loss_type": "apo_zero_unpaired"}],
    ),
    (
        {"task_type": "grpo", "num_generations": 2, **NEEDED["grpo"]},
        "num_generations: a completion is compared with 1 other, and often all are equally good; use 4 or more, 8 is "
        "usual",
        [{"num_generations": 4}],
    ),
    (
        {"eval_file": ["e.jsonl", "./d.jsonl"]},
        "eval_file: ./d.jsonl is in train_file too, so eval_loss says how well it was learned by heart; name rows "
        "that are not trained on, or use eval_split: 0.05",
        [{"eval_file": "e.jsonl"}],
    ),
    (
        {"eval_split": 0.1, "num_train_epochs": 2},
        "load_best_model_at_end: evaluation runs, and the last weights are kept whatever it says; set "
        "load_best_model_at_end: true with save_strategy: epoch",
        [
            {"num_train_epochs": 1},
            {"load_best_model_at_end": True, "save_strategy": "epoch"},
            {"early_stopping_patience": 1},
        ],
    ),
    (
        {"task_type": "dpo", "beta": 5},
        "beta: 5 is far above what dpo is used with; 0.1 is usual",
        [{"beta": 0.5}, {"loss_type": "sigmoid_norm"}],
    ),
    (
        {"task_type": "cpo", "loss_type": "simpo"},
        "beta: 0.1 is far below what simpo is used with; 2 is usual",
        [{"beta": 2.5}, {"loss_type": "sigmoid"}],
    ),
    (
        {"max_grad_norm": 0},
        "max_grad_norm: gradients are not clipped, so that one odd batch can undo the run; 1.0 is usual",
        [{"max_grad_norm": 1}],
    ),
]
IDS = [f"{hint.partition(':')[0]}-{number}" for number, (_, hint, _) in enumerate(CASES)]


@pytest.mark.parametrize(("settings", "hint", "changes"), CASES, ids=IDS)
def test_an_odd_choice(settings: dict[str, Any], hint: str, changes: list[dict[str, Any]]) -> None:
    assert hints(**settings) == [hint]
    for change in changes:
        assert hint not in hints(**{**settings, **change}), change


@pytest.mark.parametrize(
    ("settings", "multiplied"),
    [
        ({"lora_alpha": 10**400}, "inf"),
        ({"lora_rank": 10**400}, "0"),
        ({"lora_rank": 10**400, "use_rslora": True}, "0"),
        ({"lora_alpha": 10**400, "use_rslora": True}, "inf"),
        ({"max_steps": 10**400}, None),
        ({"max_steps": 10**400, "warmup_steps": 10}, None),
        ({"per_device_train_batch_size": 10**400}, None),
        ({"gradient_accumulation_steps": 10**400}, None),
        ({"max_seq_length": 10**400}, None),
    ],
)
def test_a_number_beyond_floats_does_not_end_the_check(settings: dict[str, Any], multiplied: str | None) -> None:
    given = hints(**settings)
    assert [f"by {multiplied};" in hint for hint in given] == ([] if multiplied is None else [True])


def test_every_rule_has_a_case_and_every_key_is_named() -> None:
    keys = {hint.partition(":")[0] for _, hint, _ in CASES}
    assert keys <= set(HINT_KEYS) <= set(schema_fields())
    configs = [load_config({**OWN, **settings}) for settings, _, _ in CASES]
    given = {hint.key for config in configs for rule in HINTS for hint in rule(config)}
    assert len({rule.__name__ for rule in HINTS}) == len(HINTS)
    assert given == keys
    for rule in HINTS:
        assert any(list(rule(config)) for config in configs), rule.__name__


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", SHIPPED_TASKS)
def test_defaults_are_no_odd_choices(task: str, mode: str) -> None:
    """Also with those settings of the guide that are called usual."""
    needed = NEEDED.get(task, {})
    assert hints(task_type=task, train_mode=mode, **needed) == []
    usual = LEARNING_RATES[task].of(mode)
    assert usual.low < usual.usual < usual.high
    assert hints(task_type=task, train_mode=mode, learning_rate=usual.usual, **needed) == []


def test_adapters_have_the_higher_rates() -> None:
    for task, rates in LEARNING_RATES.items():
        assert rates.adapter.usual >= rates.full.usual, task
        assert rates.adapter.high >= rates.full.high, task


def test_losses_are_those_of_the_tables() -> None:
    assert set(BETAS_OF_MEANS) <= {*LOSSES["dpo"], *LOSSES["cpo"]}
    assert set(BETAS) == set(PREFERENCE_TASKS)


def test_a_hint_is_printed_with_its_place_before_the_verdict(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model_name_or_path: m\ntrain_file: d\noptim: adamw_hf\nlearning_rate: 1\n", encoding="utf-8")
    assert list(describe_check(load_config(file, ["lora_alpha=1024"]))) == [
        f"{file}:3:8: optim: adamw_hf is an old name, read as adamw_torch; write adamw_torch",
        f"hint: {file}:4:1: learning_rate: 1 is far above what sft with qlora is trained with; 2e-4 is usual",
        "hint: command line: lora_alpha: lora_alpha / lora_rank multiplies the adapter's output by 16; 0.125 to 4 is "
        "usual",
        f"{file}: valid; sft, qlora, output to output{tmp_path}/a",
    ]


def test_a_hint_without_a_place_and_numbers_in_words() -> None:
    assert str(Hint("packing", "off", "turn it on")) == "packing: off; turn it on"
    assert [say_rate(value) for value in (2e-4, 1.5e-5, 1e-3, 0.01, 0, 1)] == [
        "2e-4", "1.5e-5", "0.001", "0.01", "0", "1",
    ]  # fmt: skip

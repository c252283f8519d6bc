"""The first step of preference tasks against TRL used directly on the same rows: loss and gradients, in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from component.config.load import load_config
from component.pipeline.build_run import build_run
from component.pipeline.prepare import prepare
from component.registry import TASKS
from component.trainers.trl_experimental import cpo, orpo

#: Largest difference of a gradient, as a share of the largest gradient. Seen: below 1e-6.
TOLERANCE = 1e-5
ROWS = [
    ("The sun rises in the", " east, as it does each day.", " afternoon."),
    ("Say a number.\n", "Seven", "I would rather not say any number at all, thank you"),
    ("Q: 1 + 1?\nA:", " 2", " 3, or more.\n"),
    ("Name a tree:", " an oak", " a stone"),
]


@pytest.fixture
def ours(tiny_settings: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Builds the trainer of a task on those rows."""

    def build(rows: list[dict[str, Any]], **settings: Any) -> Any:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        config = load_config(
            {**tiny_settings, "train_file": str(file), "output_dir": str(tmp_path / "run"), "train_mode": "lora",
             "per_device_train_batch_size": len(rows), "gradient_accumulation_steps": 1, **settings}
        )  # fmt: skip
        (tmp_path / "run").mkdir(exist_ok=True)
        return build_run(prepare(config)).trainer

    return build


def lora(task_type: str = "CAUSAL_LM") -> LoraConfig:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, task_type=task_type)


def fill(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Give what is trained the same values in both models; a new adapter would be zero, and all ratios one."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for name in sorted(trained):
        values = torch.randn(trained[name].shape, generator=generator) * 0.05
        with torch.no_grad():
            trained[name].copy_(trained[name] + values if "lora" not in name else values)
    return trained


def first_step(trainer: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trained = fill(trainer.model)
    dataset = trainer.train_dataset
    batch = trainer._prepare_inputs(trainer.data_collator([dataset[index] for index in range(len(dataset))]))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in trained.items()}


def check_equal(ours: Any, theirs: Any) -> None:
    (loss, gradients), (their_loss, their_gradients) = first_step(ours), first_step(theirs)
    torch.testing.assert_close(loss, their_loss, rtol=TOLERANCE, atol=TOLERANCE)
    assert gradients.keys() == their_gradients.keys() and gradients
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    assert largest > 1e-4, "nothing is compared"
    for name, expected in their_gradients.items():
        assert (gradients[name] - expected).abs().max() <= TOLERANCE * largest, name


def trl_arguments(config_class: type, tmp_path: Path, **values: Any) -> Any:
    return config_class(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        **values,
    )  # fmt: skip


def pairs() -> list[dict[str, Any]]:
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in ROWS]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": ["sigmoid"]},
        {"loss_type": ["ipo"], "beta": 0.5},
        {"loss_type": ["hinge"]},
        {"loss_type": ["apo_zero"]},
        {"loss_type": ["robust"], "label_smoothing": 0.2},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.7, 0.3], "beta": 0.3},
        {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence", "ld_alpha": 0.5},
    ],
    ids=["sigmoid", "ipo", "hinge", "apo_zero", "robust", "with_sft", "js_divergence"],
)
def test_dpo(settings: dict[str, Any], ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    theirs = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl_arguments(DPOConfig, tmp_path, max_length=None, **settings),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=lora(),
    )
    built = ours(pairs(), task_type="dpo", **settings)
    assert built.ref_model is None and list(built.model.peft_config) == ["default"], "a second model or adapter"
    check_equal(built, theirs)


@pytest.mark.parametrize("precompute", [False, True])
def test_dpo_in_full(precompute: bool, ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    """The reference is a second model, or was asked before: the same to the loss."""
    settings = {"loss_type": ["sigmoid"], "precompute_ref_log_probs": precompute}
    theirs = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl_arguments(DPOConfig, tmp_path, max_length=None, loss_type=["sigmoid"]),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    built = ours(pairs(), task_type="dpo", train_mode="full", **settings)
    assert (built.ref_model is None) == precompute
    check_equal(built, theirs)


@pytest.mark.parametrize("settings", [{}, {"center_rewards_coefficient": 0.1}], ids=["plain", "centred"])
def test_reward(settings: dict[str, Any], ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    """Adapter and score head; the head is new in both, and gets the same values."""
    theirs = RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1),
        args=trl_arguments(RewardConfig, tmp_path, max_length=None, **settings),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=lora("SEQ_CLS"),
    )
    built = ours(pairs(), task_type="reward", **settings)
    for model in (built.model, theirs.model):
        model.get_base_model().score.modules_to_save["default"].weight.data.fill_(0.05)
    check_equal(built, theirs)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_orpo(beta: float, ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    theirs = orpo.ORPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl_arguments(orpo.ORPOConfig, tmp_path, beta=beta, max_length=512),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=lora(),
    )
    check_equal(ours(pairs(), task_type="orpo", beta=beta), theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss_type": "sigmoid", "label_smoothing": 0.2, "cpo_alpha": 0.3, "beta": 0.3},
        {"loss_type": "hinge", "cpo_alpha": 0},
        {"loss_type": "ipo", "beta": 0.5},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.6, "label_smoothing": 0.1, "cpo_alpha": 0.5},
        {"loss_type": "alphapo", "beta": 2.0, "simpo_gamma": 1.0, "alphapo_alpha": 0.25},
    ],
    ids=["defaults", "smoothed", "hinge", "ipo", "simpo", "simpo_with_sft", "alphapo"],
)
def test_cpo(settings: dict[str, Any], ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    named = {"alpha" if name == "alphapo_alpha" else name: value for name, value in settings.items()}
    theirs = cpo.CPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl_arguments(cpo.CPOConfig, tmp_path, max_length=512, **named),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=lora(),
    )
    check_equal(ours(pairs(), task_type="cpo", **settings), theirs)


def test_simpo_by_hand(ours: Any) -> None:
    """Equation 6 of the paper, from the model's own log-probabilities: TRL's words for it are its loss."""
    trainer = ours(pairs(), task_type="cpo", loss_type="simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0)
    loss, _ = first_step(trainer)
    means = []
    for sample in (getattr(pair, side) for pair in trainer.train_dataset.samples for side in ("chosen", "rejected")):
        labels = torch.tensor(sample.labels())[1:]
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([sample.input_ids])).logits[0, :-1]
        means.append(-torch.nn.functional.cross_entropy(logits, labels))
    chosen, rejected = torch.stack(means).view(-1, 2).unbind(1)
    expected = -torch.nn.functional.logsigmoid(2.0 * chosen - 2.0 * rejected - 1.0).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "kto", "desirable_weight": 0.7, "undesirable_weight": 1.3},
        {"loss_type": "kto", "beta": 0.5},
        {"loss_type": "apo_zero_unpaired"},
        {"loss_type": "apo_zero_unpaired", "precompute_ref_log_probs": True},
    ],
    ids=["weights", "beta", "apo", "precomputed"],
)
def test_kto(settings: dict[str, Any], ours: Any, tiny_model: Path, tmp_path: Path) -> None:
    """The mismatched answers too: one batch holds all rows, so that both pair them alike."""
    rows = [
        {"prompt": prompt, "completion": answer, "label": number % 3 != 1}
        for number, (prompt, *answers) in enumerate(ROWS)
        for answer in answers[: 1 + number % 2]
    ]
    theirs = KTOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=trl_arguments(
            KTOConfig, tmp_path, max_length=None, per_device_train_batch_size=len(rows),
            **{**settings, "precompute_ref_log_probs": False},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        peft_config=lora(),
    )  # fmt: skip
    check_equal(ours(rows, task_type="kto", **settings), theirs)


def test_what_trl_has_is_what_we_name() -> None:
    """The table of losses: each is computed, and what TRL says it has is all in it."""
    import inspect
    import re

    from component.config.choices import DIVERGENCE_LOSSES, LOSSES
    from component.config.schema import CPOSection, DPOSection
    from component.trainers.cpo import TRL_KEYS as CPO_KEYS
    from component.trainers.dpo import TRL_KEYS

    source = inspect.getsource(DPOTrainer)
    listed = re.search(r"Unknown loss type: .*?Should be one of \[(.*?)\]\"", source, re.DOTALL)
    assert set(re.findall(r"'(\w+)'", listed[1])) == set(LOSSES["dpo"])
    allowed = re.search(r"f_divergence_loss_types = \{(.*?)\}", source)
    assert set(re.findall(r'"(\w+)"', allowed[1])) == set(DIVERGENCE_LOSSES)
    assert {*TRL_KEYS, "reference_model_name_or_path"} == set(DPOSection.__dataclass_fields__)
    assert set(re.findall(r'self.loss_type == "(\w+)"', inspect.getsource(KTOTrainer))) == set(LOSSES["kto"])
    assert set(cpo.CPOConfig.__dataclass_fields__["loss_type"].metadata["choices"]) == set(LOSSES["cpo"])
    assert {*CPO_KEYS, "loss_type", "alphapo_alpha"} == set(CPOSection.__dataclass_fields__)
    assert set(LOSSES) <= set(TASKS.names())

"""Runs of kto, orpo and cpo: what is saved is what was trained, runs go on exactly, and what cannot work is refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from component.artifacts.metrics import read_metrics
from component.config.errors import ConfigError, DataError, InterruptedRun
from component.config.load import load_config
from component.data.rows import Prepared
from component.models.inference import load_for_inference
from component.pipeline import run
from component.pipeline.prepare import prepare


def token_log_probabilities(model: torch.nn.Module, sample: Prepared) -> torch.Tensor:
    """Of the supervised tokens of a sample, in nats."""
    labels = torch.tensor([sample.labels()])[:, 1:]
    with torch.no_grad():
        log_probabilities = model(input_ids=torch.tensor([sample.input_ids])).logits[:, :-1].log_softmax(-1)
    return log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)[labels != -100]


def mean(values: list[torch.Tensor]) -> float:
    return float(torch.stack(values).mean())


def test_kto(task_settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """What the log says of the held-out rows is what the saved model says."""
    settings = {**task_settings["kto"], "train_mode": "lora", "output_dir": str(tmp_path / "run")}
    run(settings)
    model, _ = load_for_inference(str(tmp_path / "run"), device="cpu")
    held_out = prepare(load_config(settings)).data.evaluation
    lines = read_metrics(tmp_path / "run")
    for name, is_good in (("chosen", True), ("rejected", False)):
        values = [token_log_probabilities(model, sample).sum() for sample in held_out if sample.label == is_good]
        assert values and mean(values) == pytest.approx(lines[-1][f"eval_logps/{name}"], rel=1e-5)
    assert lines[0]["loss"] == pytest.approx(0.5, rel=1e-5) and lines[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["eval_rewards/margins"] != pytest.approx(0, abs=1e-3)
    details = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["loader"]["details"]
    assert sum(details["labels"].values()) == 16 and "starting model" in details["reference"]


def test_orpo(task_settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """As with kto; log-probabilities are means over tokens."""
    settings = {**task_settings["orpo"], "train_mode": "lora", "output_dir": str(tmp_path / "run")}
    run(settings)
    model, _ = load_for_inference(str(tmp_path / "run"), device="cpu")
    held_out = prepare(load_config(settings)).data.evaluation
    last = read_metrics(tmp_path / "run")[-1]
    for side in ("chosen", "rejected"):
        values = [token_log_probabilities(model, getattr(pair, side)).mean() for pair in held_out]
        assert mean(values) == pytest.approx(last[f"eval_logps/{side}"], rel=1e-5)
    assert {"eval_rewards/margins", "eval_nll_loss", "eval_log_odds_ratio"} <= last.keys()


@pytest.mark.parametrize("mode", ["full", "lora", "qlora"])
def test_cpo(mode: str, task_settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Sums over tokens with adapters, means of simpo in full; rewards are beta times what is compared."""
    simpo = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0} if mode == "full" else {}
    settings = {**task_settings["cpo"], **simpo, "train_mode": mode, "output_dir": str(tmp_path / "run")}
    run(settings)
    model, _ = load_for_inference(str(tmp_path / "run"), device="cpu")
    held_out = prepare(load_config(settings)).data.evaluation
    first, *_, last = read_metrics(tmp_path / "run")
    for side in ("chosen", "rejected"):
        values = [token_log_probabilities(model, getattr(pair, side)) for pair in held_out]
        compared = mean([value.mean() if simpo else value.sum() for value in values])
        assert compared == pytest.approx(last[f"eval_logps/{side}"], rel=1e-5)
        assert last[f"eval_rewards/{side}"] == pytest.approx(compared * settings.get("beta", 0.1), rel=1e-5)
    assert (last["eval_nll_loss"] == 0) == bool(simpo)
    assert last["eval_rewards/margins"] != pytest.approx(first["rewards/margins"], abs=1e-3), "nothing was learned"


@pytest.mark.parametrize("task", ["kto", "orpo", "cpo"])
def test_an_interrupted_run_goes_on_exactly(
    task: str,
    task_settings: dict[str, dict[str, Any]],
    tmp_path: Path,
    signal_at: Any,
    trained_metrics: Callable[[Path], list[dict[str, Any]]],
) -> None:
    settings = {**task_settings[task], "train_mode": "lora", "logging_steps": 2}
    run({**settings, "output_dir": str(tmp_path / "left alone")})
    again = {**settings, "output_dir": str(tmp_path / "stopped")}
    with signal_at("step 2/", signal.SIGINT), pytest.raises(InterruptedRun):
        run(again)
    run(again)
    assert trained_metrics(tmp_path / "stopped") == trained_metrics(tmp_path / "left alone")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("stopped", "left alone"))
    assert one.read_bytes() == other.read_bytes()


def test_labels_that_are_no_booleans(task_settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in ("good", True, 0.5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {**task_settings["kto"], "train_file": str(tmp_path / "rows.jsonl"), "eval_split": None}
    with pytest.raises(DataError) as raised:
        run({**settings, "output_dir": str(tmp_path / "run")})
    assert raised.value.exit_code == 2 and "rows.jsonl:1" in str(raised.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"per_device_train_batch_size": 1}, "kto compares the answers of a micro-batch"),
        ({"precompute_ref_log_probs": True}, "nothing can be computed before"),
        ({"loss_type": "sigmoid"}, 'kto has no loss "sigmoid"'),
        ({"loss_type": ["kto", "apo_zero_unpaired"]}, "kto has one loss, not 2"),
        ({"desirable_weight": 0, "undesirable_weight": 0}, "are both 0"),
    ],
)
def test_what_kto_cannot_do(settings: dict[str, Any], words: str, task_settings: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config({**task_settings["kto"], "output_dir": "o", **settings})
    assert raised.value.exit_code == 2 and words in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_type": "kto"}, 'cpo has no loss "kto"; use task_type: kto, which has it, or sigmoid, hinge'),
        ({"loss_type": ["sigmoid", "simpo"]}, "cpo has one loss, not 2"),
        ({"loss_type": "simpo", "beta": 0}, "ipo, simpo, alphapo divide by beta, which is 0"),
        ({"loss_type": "alphapo"}, "set alphapo_alpha: 0.25, or use loss_type: simpo with cpo_alpha: 0"),
        ({"alphapo_alpha": 0.25}, "sigmoid takes those of whole answers"),
        ({"task_type": "simpo"}, 'there is no "simpo"; use task_type: cpo with loss_type: simpo and cpo_alpha: 0'),
        ({"task_type": "dpo", "loss_type": "simpo"}, 'dpo has no loss "simpo"; use task_type: cpo, which has it'),
        ({"reference_model_name_or_path": "m"}, "task_type cpo does not read it, only dpo, kto"),
    ],
)
def test_what_cpo_cannot_do(settings: dict[str, Any], words: str, task_settings: dict[str, dict[str, Any]]) -> None:
    values = {**task_settings["cpo"], "output_dir": "o", **settings}
    if "reference_model_name_or_path" in settings:
        assert words in "".join(map(str, load_config(values).notices))
        return
    with pytest.raises(ConfigError) as raised:
        load_config(values)
    assert raised.value.exit_code == 2 and words in str(raised.value)

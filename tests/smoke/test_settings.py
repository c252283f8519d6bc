"""Settings seen to work in whole runs: modes, evaluation, best model, early stopping, what a CPU changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from component.artifacts.metrics import read_metrics
from component.pipeline import run


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("mode", "trainable", "quantization"),
    [("full", 28, None), ("lora", 28, None), ("qlora", 28, "4-bit nf4, double quantization (14 layers)")],
)
def test_modes_learn(mode: str, trainable: int, quantization: str | None, tiny_settings, tiny_model, tmp_path) -> None:
    """Twelve steps on 22 rows; what must not change does not, what is trained does."""
    settings = {**tiny_settings, "train_mode": mode, "max_steps": 12, "save_strategy": "no"}
    result = run({**settings, "learning_rate": 1e-2, "output_dir": str(tmp_path / "run")})
    assert result.metrics["last_loss"] < result.metrics["first_loss"] - 0.5
    assert read_manifest(tmp_path / "run")["loader"]["details"]["got"]["quantization"] == quantization
    names = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
    if mode == "full":
        assert names == {"model.safetensors"}
        before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, tmp_path / "run"))
        assert before.keys() == after.keys()
        assert all(not torch.equal(before[name], after[name]) for name in before)
    else:
        assert names == {"adapter_model.safetensors"}
        adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
        assert len(adapter) == trainable and all(tensor.abs().sum() > 0 for tensor in adapter.values())


def test_fp16_on_a_cpu(tiny_settings, tmp_path, capsys) -> None:
    settings = {**tiny_settings, "fp16": True, "max_steps": 1, "save_strategy": "no"}
    run({**settings, "output_dir": str(tmp_path / "run")})
    manifest = read_manifest(tmp_path / "run")
    assert [notice for notice in manifest["notices"] if "fp16" in notice] == ["fp16: true becomes float32 on a CPU"]
    assert manifest["loader"]["details"]["got"]["compute_dtype"] == "float32"
    assert capsys.readouterr().out.count("fp16: true") == 1


def test_first_step_is_logged_or_not(tiny_settings, tmp_path) -> None:
    settings = {**tiny_settings, "max_steps": 3, "logging_steps": 2, "save_strategy": "no"}
    steps = {}
    for logs_first in (True, False):
        folder = tmp_path / str(logs_first)
        run({**settings, "logging_first_step": logs_first, "output_dir": str(folder)})
        steps[logs_first] = [record["step"] for record in read_metrics(folder)]
    assert steps == {True: [1, 2, 3], False: [2, 3]}


def test_nothing_is_logged(tiny_settings, tmp_path) -> None:
    settings = {**tiny_settings, "max_steps": 1, "logging_strategy": "no", "logging_first_step": False}
    result = run({**settings, "save_strategy": "no", "output_dir": str(tmp_path / "run")})
    assert (result.metrics["last_loss"], read_metrics(tmp_path / "run")) == (None, [])


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_best_model_and_early_stopping(mode: str, tiny_settings, conversations, tmp_path, capsys) -> None:
    """A learning rate that soon does harm: training stops, and the best of the evaluated models is what is saved."""
    settings = {
        **tiny_settings,
        "train_mode": mode,
        "learning_rate": {"full": 0.5, "lora": 30.0}[mode],
        "lr_scheduler_type": "constant",
        "eval_file": str(conversations),
        "eval_steps": 1,
        "save_steps": 1,
        "max_steps": 30,
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "save_total_limit": 2,
        "output_dir": str(tmp_path / "run"),
    }
    result = run(settings)
    records = read_metrics(tmp_path / "run")
    losses = {record["step"]: record["loss"] for record in records if "loss" in record}
    evaluations = {record["step"]: record["eval_loss"] for record in records if "eval_loss" in record}
    best = min(evaluations, key=evaluations.__getitem__)
    last = result.global_step
    assert list(evaluations) == list(range(1, last + 1)) and last == best + 2 < 30
    name = "model.safetensors" if mode == "full" else "adapter_model.safetensors"
    saved, checkpoint = (load_file(tmp_path / "run" / folder / name) for folder in ("", f"checkpoint-{best}"))
    assert all(torch.equal(saved[name], checkpoint[name]) for name in saved)
    # What is told is of that model too, not of the one that training ended with.
    metrics = result.metrics
    assert (metrics["model_step"], metrics["last_step"]) == (best, last)
    assert (metrics["last_loss"], metrics["eval_loss"]) == (losses[best], evaluations[best])
    assert metrics["eval_loss"] == pytest.approx(loss_of(tmp_path / "run", settings, tmp_path / "again"), abs=1e-5)
    output = capsys.readouterr()
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    for text in (log, output.err):
        assert f"early stopping after step {last} of 30: eval_loss has not improved in the last 2 evaluations" in text
        assert f"checkpoint-{best} was the best, with eval_loss {evaluations[best]:.4f}: its weights are load" in text
    assert f"stopped early after {last} of 30; saved, and shown here, is the best: that of step {best}\n" in output.out
    assert f"-> {losses[best]:.4f} nats" in output.out and f"eval loss    {evaluations[best]:.4f}," in output.out


def loss_of(folder: Path, settings: dict[str, Any], output: Path) -> float:
    """The evaluation loss of a saved model, loaded to be trained further, before the first step of that."""
    changes = {"model_name_or_path": str(folder), "output_dir": str(output), "max_steps": 1, "eval_on_start": True}
    run({**settings, **changes, "load_best_model_at_end": False, "early_stopping_patience": None})
    return next(record["eval_loss"] for record in read_metrics(output) if record["step"] == 0)


def test_early_stopping_alone_keeps_the_last_model(tiny_settings, conversations, tmp_path) -> None:
    settings = {**tiny_settings, "train_mode": "full", "learning_rate": 0.5, "lr_scheduler_type": "constant"}
    settings |= {"eval_file": str(conversations), "eval_steps": 1, "save_steps": 1, "max_steps": 30}
    result = run({**settings, "early_stopping_patience": 2, "output_dir": str(tmp_path / "run")})
    evaluations = [record["eval_loss"] for record in read_metrics(tmp_path / "run") if "eval_loss" in record]
    assert result.metrics["model_step"] == result.metrics["last_step"] == len(evaluations) < 30
    assert result.metrics["eval_loss"] == evaluations[-1] > min(evaluations)
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    best = evaluations.index(min(evaluations)) + 1
    assert f"the best eval_loss {min(evaluations):.4f} was at step {best}; the weights of the last step are" in log


def test_dry_run_needs_no_weights(tiny_model, tiny_settings, tmp_path, run_train) -> None:
    shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = {**tiny_settings, "model_name_or_path": "model", "output_dir": "run", "eval_split": 0.2, "fp16": True}
    finished = run_train(settings, tmp_path, "--dry_run")
    assert finished.returncode == 0, finished.stderr
    out = finished.stdout
    assert "<|assistant|>⟦" in out and "<|end|>⟧" in out
    assert "\nrows       22 read, 22 used, 0 dropped, 4 held out for evaluation\n" in out
    assert "loader: vanilla (use_unsloth: false)" in out
    assert "precision: weights float32, computation float32" in out
    assert out.count("notice: fp16: true becomes float32 on a CPU\n") == 1
    assert "steps: 3 optimizer steps of 8 rows each" in out
    assert not (tmp_path / "run").exists()


#: As the sft files of Firefly are written; the names that transformers dropped and the paths are part of it.
FIREFLY = {
    "train_file": "./data/dummy_data.jsonl",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "learning_rate": 2e-4,
    "max_seq_length": 1024,
    "logging_steps": 100,
    "save_steps": 100,
    "save_total_limit": 1,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 100,
    "gradient_checkpointing": True,
    "disable_tqdm": False,
    "optim": "paged_adamw_32bit",
    "seed": 42,
    "fp16": True,
    "report_to": "tensorboard",
    "dataloader_num_workers": 2,
    "save_strategy": "steps",
    "weight_decay": 0,
    "max_grad_norm": 0.3,
    "remove_unused_columns": False,
}
ADAPTER = {"lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.05, "use_unsloth": False}
FULL = {"train_mode": "full", "optim": "adamw_hf", "deepspeed": "./train_args/ds_z3_config.json"}


@pytest.fixture(scope="module")
def firefly(tiny_model: Path) -> dict[str, Any]:
    return {**FIREFLY, "model_name_or_path": str(tiny_model), "use_cpu": True, "bf16": False}


def template_names() -> tuple[str, ...]:
    from component.registry import TEMPLATE_NAMES

    return TEMPLATE_NAMES


@pytest.mark.parametrize("template_name", template_names())
def test_every_template_of_firefly_prepares(template_name: str, firefly, tmp_path, repository, monkeypatch) -> None:
    from component.config.load import load_config
    from component.pipeline.prepare import prepare

    monkeypatch.chdir(repository)
    settings = {**firefly, **ADAPTER, "template_name": template_name, "output_dir": str(tmp_path / "run")}
    prepared = prepare(load_config(settings))
    assert prepared.data.report.to_dict()["rows_dropped"] == 0
    sample = prepared.data.train[0]
    assert sample.spans and all(start < end for start, end in sample.spans)
    answer = prepared.tokenizer.decode(sample.input_ids[slice(*sample.spans[0])])
    assert answer.lstrip().startswith("Nairobi."), answer


@pytest.mark.parametrize(
    ("template_name", "keys"), [("llama3", ADAPTER), ("chatglm2", ADAPTER), ("qwen", FULL)], ids=str
)
def test_firefly_files_train(template_name: str, keys, firefly, tmp_path, repository, monkeypatch) -> None:
    monkeypatch.chdir(repository)
    settings = {**firefly, **keys, "template_name": template_name, "output_dir": str(tmp_path / "run")}
    result = run(settings, max_steps=2)
    assert result.global_step == 2 and (tmp_path / "run" / "checkpoint-2").is_dir()
    notices = read_manifest(tmp_path / "run")["notices"]
    expected = ["fp16: true becomes float32 on a CPU"]
    expected += ["deepspeed: ignored on a CPU"] if keys is FULL else ["optim: paged_adamw_32bit does not page on a CPU"]
    for text in expected:
        assert sum(text in notice for notice in notices) == 1, (text, notices)
    assert list((tmp_path / "run" / "runs").rglob("events.out.tfevents.*"))

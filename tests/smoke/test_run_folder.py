"""What a run leaves behind: files, their content, and that all of it can be used again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from component.artifacts.metrics import read_metrics
from component.models.inference import load_for_inference
from component.pipeline import run

FILES = {
    "run.json",
    "train_args.yaml",
    "metrics.jsonl",
    "train.log",
    "loss.png",
    "report.html",
    "data_lengths.png",
    "generations.jsonl",
    "adapter_config.json",
    "adapter_model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@pytest.fixture(scope="module")
def manifest(finished_run: Path) -> dict:
    return json.loads((finished_run / "run.json").read_text(encoding="utf-8"))


def test_files(finished_run) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert names >= FILES
    assert [name for name in names if name.startswith("checkpoint-")] == ["checkpoint-9"]
    assert list(finished_run.rglob("training_args.bin")) == []
    assert list(finished_run.glob("*.bin")) + list(finished_run.glob("*.pt")) == []
    assert list((finished_run / "runs").rglob("events.out.tfevents.*")), "no tensorboard logs"


def test_data_report(manifest, finished_run) -> None:
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    log = (finished_run / "train.log").read_text(encoding="utf-8")
    assert [re.sub("^config: ", "", hint).partition(":")[0] for hint in manifest["hints"]] == [
        "learning_rate", "load_best_model_at_end",
    ]  # fmt: skip
    assert "<h2>Hints</h2>" in page and all(f"<li>{hint}</li>" in page for hint in manifest["hints"])
    assert "learning_rate: 0.01 is far above what sft with qlora is trained with" in log
    train, evaluation = manifest["data"]["train"], manifest["data"]["evaluation"]
    assert "<td>22 read, 22 used, 0 dropped, 6 held out for evaluation</td>" in page
    for report in (train, evaluation):
        assert f"<td>{report['num_tokens']:,} in all, {report['num_supervised_tokens']:,} supervised (" in page
    assert f"p99 {train['lengths']['p99']}, max {train['lengths']['maximum']}</td>" in page
    assert page.count("<pre>") == 3 and "data:image/png;base64," in page
    assert (finished_run / "data_lengths.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_manifest(manifest, sft_settings, finished_run) -> None:
    assert (manifest["schema_version"], manifest["status"]) == (1, "finished")
    assert manifest["config"]["learning_rate"] == sft_settings["learning_rate"]
    assert manifest["config"]["lr_scheduler_type"] == "cosine", "defaults belong to it"
    assert manifest["config_sources"].keys() == {*sft_settings, "output_dir"}
    assert manifest["seeds"] == {"seed": 42, "data_seed": 42}
    assert manifest["hashes"].keys() == {"config", "data", "tokenizer", "template"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in manifest["hashes"].values())
    environment = manifest["environment"]
    assert environment["packages"]["torch"] == torch.__version__
    assert {"commit", "dirty", "diff_sha256"} <= environment["git"].keys() and environment["python"]
    loader = manifest["loader"]
    assert (loader["asked"], loader["got"], loader["reason"]) == (False, "vanilla", "use_unsloth: false")
    assert loader["details"]["got"]["quantization"] == "4-bit nf4, double quantization (14 layers)"
    report = manifest["data"]["train"]
    assert report["rows_read"] == report["rows_used"] + report["rows_dropped"] == 22
    assert (report["num_samples"], report["rows_held_out"]) == (16, 6)
    assert manifest["data"]["evaluation"]["rows_used"] == 6
    (attempt,) = manifest["attempts"]
    assert (attempt["status"], attempt["from_step"], attempt["to_step"], attempt["exit_code"]) == ("finished", 0, 9, 0)
    assert manifest["plan"]["measured"] is None  # there is no GPU
    assert manifest["plan"]["predicted"]["peak_allocated_bytes"] > 0
    timings = manifest["timings"]
    start = timings.pop("first_step_parts_seconds")
    spans = {"prepare_seconds", "load_seconds", "train_seconds", "total_seconds", "first_step_seconds"}
    assert timings.keys() == spans and start.keys() == {"imports", "data", "model", "step"}
    assert timings["first_step_seconds"] == pytest.approx(sum(start.values()), abs=0.01)
    assert timings["first_step_seconds"] < timings["total_seconds"]
    metrics = manifest["metrics"]
    records = read_metrics(finished_run)
    losses = [record["loss"] for record in records if "loss" in record]
    assert (metrics["first_loss"], metrics["last_loss"]) == (losses[0], losses[-1])
    assert losses[-1] < losses[0]
    assert metrics["eval_loss"] == records[-1]["eval_loss"]
    assert metrics["supervised_tokens"] == 3 * report["num_supervised_tokens"]
    assert metrics["total_tokens"] == 3 * report["num_tokens"]
    assert 0 < metrics["real_tokens_per_second"] <= metrics["padded_tokens_per_second"]


def test_metrics(finished_run) -> None:
    records = read_metrics(finished_run)
    logged = [record for record in records if "loss" in record]
    assert [record["step"] for record in logged] == [1, 2, 4, 6, 8, 9], "the first, every second and the last step"
    assert [record["step"] for record in records if "eval_loss" in record] == [3, 6, 9]
    fields = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "supervised_tokens"}
    assert all(record.keys() == fields | {"total_tokens", "peak_memory_bytes"} for record in logged)
    totals = [record["supervised_tokens"] for record in logged]
    assert totals == sorted(set(totals))


def test_generations(finished_run) -> None:
    lines = (finished_run / "generations.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [3, 6, 9]
    assert all(record.keys() == {"step", "source", "expected", "answer"} for record in records)
    assert len({record["source"] for record in records}) == 1 and records[0]["expected"]


def test_saved_model(finished_run, tiny_model) -> None:
    """The stop token is known, the chat template is kept, and the adapter loaded again gives the same evaluation."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(finished_run)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    assert GenerationConfig.from_pretrained(finished_run).eos_token_id == [tokenizer.convert_tokens_to_ids("<|end|>")]

    from component.config.load import load_config
    from component.data.collators import PaddingCollator
    from component.data.dataset import PreparedDataset
    from component.pipeline.prepare import prepare

    model, _ = load_for_inference(str(finished_run), device="cpu")
    prepared = prepare(load_config(finished_run / "train_args.yaml"))
    samples = PreparedDataset(prepared.data.evaluation)
    batch = PaddingCollator(tokenizer.pad_token_id)([samples[index] for index in range(len(samples))])
    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss.item()
    assert loss == pytest.approx(read_metrics(finished_run)[-1]["eval_loss"], abs=1e-6)


def test_rebuilt_from_the_manifest_alone(manifest, finished_run, tmp_path, trained_metrics) -> None:
    result = run(manifest["config"], output_dir=str(tmp_path / "again"))
    assert trained_metrics(result.output_dir) == trained_metrics(finished_run)
    again = json.loads((result.output_dir / "run.json").read_text(encoding="utf-8"))
    assert again["hashes"] == manifest["hashes"]
    for name in ("adapter_model.safetensors", "generations.jsonl"):
        assert (result.output_dir / name).read_bytes() == (finished_run / name).read_bytes(), name


def test_rerun_from_train_args(manifest, finished_run, tmp_path, run_train, trained_metrics) -> None:
    """In another process, with another working directory."""
    settings = yaml.safe_load((finished_run / "train_args.yaml").read_text(encoding="utf-8"))
    assert settings == manifest["config"]
    finished = run_train(settings, tmp_path / "again", "output_dir=run")
    assert finished.returncode == 0, finished.stderr
    assert trained_metrics(tmp_path / "again" / "run") == trained_metrics(finished_run)


def test_a_run_folder_is_a_model(tiny_settings, tmp_path) -> None:
    """Full pretraining, an adapter on its folder, and that adapter trained further."""
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"the number {number}"}) + "\n" for number in range(8)))
    common = {**tiny_settings, "max_steps": 2, "save_strategy": "no"}
    pretrain = {"task_type": "pretrain", "train_mode": "full", "train_file": str(text)}
    run({**common, **pretrain, "output_dir": str(tmp_path / "base")})
    assert (tmp_path / "base" / "model.safetensors").is_file()
    first = run({**common, "model_name_or_path": str(tmp_path / "base"), "output_dir": str(tmp_path / "first")})
    adapter = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tmp_path / "base")
    second = run(
        {**common, "model_name_or_path": str(first.output_dir), "output_dir": str(tmp_path / "second"), "lora_rank": 4}
    )
    adapter = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["r"]) == (str(tmp_path / "base"), 8)
    assert second.metrics["first_loss"] < first.metrics["first_loss"]
    notices = json.loads((tmp_path / "second" / "run.json").read_text())["notices"]
    assert any("training goes on from the adapter" in notice for notice in notices)

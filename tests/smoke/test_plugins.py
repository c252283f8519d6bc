"""Components of the user's own: a format, a loader and a task, one file and one decorator each."""

from __future__ import annotations

import json
from typing import Any

FORMAT = """
from component.data.rows import Message, Row
from component.registry import FORMATS


@FORMATS.register("my_format")
class Quiz:
    row_kind = "messages"

    @staticmethod
    def looks_like(record):
        return "quiz" in record

    @staticmethod
    def parse(record, source):
        question, answer = record["quiz"]
        return Row(source, messages=(Message("user", question), Message("assistant", answer)))
"""
LOADER = """
from dataclasses import replace

from component.models.vanilla import load_vanilla
from component.registry import LOADERS


@LOADERS.register("my_loader")
def load(model, adapter, **arguments):
    loaded = load_vanilla(model, adapter, **arguments)
    return replace(loaded, got={**loaded.got, "loader": "my_loader"}, notices=("my loader was here",))
"""
TASK = """
from component.registry import TASKS
from component.trainers.sft import build_sft_trainer
from component.trainers.task import Task


def build(section, training, model, data, context):
    trainer = build_sft_trainer(section, training, model, data, context)
    (context.output_dir / "my_task.txt").write_text(f"{len(data.train)} samples")
    return trainer


TASKS.register("my_task")(Task(name="my_task", row_kind="messages", section="generation", build=build))
"""


def test_a_format_a_loader_and_a_task(tiny_settings: dict[str, Any], run_train, tmp_path) -> None:
    for name, text in (("format", FORMAT), ("loader", LOADER), ("task", TASK)):
        (tmp_path / f"my_{name}.py").write_text(text, encoding="utf-8")
    rows = [{"quiz": [f"What is {number} and one?", str(number + 1)]} for number in range(8)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        **tiny_settings,
        "plugins": ["my_format.py", "my_loader.py", "my_task.py"],
        "train_file": "quiz.jsonl",
        "model_loader": "my_loader",
        "task_type": "my_task",
        "template_name": "auto",
        "num_train_epochs": 1,
        "output_dir": "run",
    }
    finished = run_train(settings, tmp_path)
    assert finished.returncode == 0, finished.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    (file,) = manifest["data"]["train"]["files"]
    assert (file["data_format"], file["is_detected"], file["rows"]) == ("my_format", True, 8)
    assert (manifest["loader"]["got"], manifest["loader"]["details"]["got"]["loader"]) == ("my_loader", "my_loader")
    assert "my loader was here" in manifest["notices"]
    assert not any("template_name" in notice for notice in manifest["notices"]), "a task of one's own reads it too"
    assert manifest["config"]["task_type"] == "my_task" and manifest["config"]["template_name"] == "auto"
    assert (tmp_path / "run" / "my_task.txt").read_text() == "8 samples"
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()

"""A run that is out of memory on a card leaves a checkpoint and advice, with which it goes on to its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from component.models.tiny import Shape, make_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: One row in 40 is long; the order of the default seed puts it into a late step. Of the cap 0.55 GiB are CUDA's own.
NUM_ROWS, LONG_ROW, LONG_TEXT, ROWS = 40, 0, "three green foxes " * 1000, 4
SETTINGS = {
    "use_unsloth": "false", "train_mode": "lora", "bf16": "true", "learning_rate": "1e-3", "max_seq_length": "4096",
    "num_train_epochs": "1", "per_device_train_batch_size": str(ROWS),
    "gradient_accumulation_steps": "1", "gradient_checkpointing": "false",
    "group_by_length": "false", "save_strategy": "no", "logging_steps": "1", "max_memory_gib": "1.05",
    "truncation": "keep_start",
}  # fmt: skip


def test_out_of_memory_and_on(repository: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "tiny", tmp_path / "run"
    shape = Shape(hidden_size=512, num_attention_heads=8, num_key_value_heads=4)
    make_tiny_model(model, shape=shape, seed=0, texts=[repository / "data/demo/pretrain.jsonl"])
    rows = [{"instruction": f"Say {number}", "output": f"{number}"} for number in range(NUM_ROWS)]
    rows[LONG_ROW]["output"] = LONG_TEXT
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "config.json"
    places = {"model_name_or_path": str(model), "train_file": str(data), "output_dir": str(output)}
    config.write_text(json.dumps({**SETTINGS, **places}))

    ended = start(repository, [sys.executable, "train.py", "--train_args_file", str(config)])
    print(ended.stdout[-3000:], ended.stderr[-3000:])
    assert ended.returncode == 4
    told = ended.stdout + ended.stderr
    (step,) = re.findall(r"out of memory after step (\d+)", told)
    assert int(step) > 0 and (output / f"checkpoint-{step}").is_dir()
    (advice,) = re.findall(r"go on with: (.*)", told)
    again = start(repository, [sys.executable, *shlex.split(advice)[1:]])
    assert again.returncode == 0, again.stderr[-3000:]
    manifest = json.loads((output / "run.json").read_text())
    assert [(attempt["from_step"], attempt["exit_code"]) for attempt in manifest["attempts"]] == [
        (0, 4),
        (int(step), 0),
    ]
    assert manifest["metrics"]["last_step"] == NUM_ROWS // ROWS


def start(repository: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the checkout, its lines unbroken."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "1000"}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=600)

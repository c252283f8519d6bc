"""`use_unsloth: true` where Unsloth cannot do it: one warning with the true reason, and the vanilla loader."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from component.models.support import TASKS as SUPPORT

pytestmark = pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed")

REASON = "model family 'gpt2' is not one that Unsloth is known to support"


@pytest.fixture(scope="module")
def gpt2(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with the tiny model's tokenizer."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=64, n_layer=2, n_head=2, **ids)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_unsupported_family(gpt2: Path, tiny_settings: dict[str, Any], run_train, tmp_path) -> None:
    settings = {**tiny_settings, "model_name_or_path": str(gpt2), "max_steps": 1, "save_strategy": "no"}
    finished = run_train({**settings, "use_unsloth": True, "output_dir": "run"}, tmp_path, is_new=True)
    assert finished.returncode == 0, finished.stderr
    warning = f"use_unsloth: true falls back to the vanilla loader: {REASON}"
    assert finished.stderr.count(REASON) == 1 and warning in finished.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    loader = manifest["loader"]
    assert (loader["asked"], loader["got"], loader["reason"]) == (True, "vanilla", REASON)
    assert warning in manifest["notices"]

    refused = run_train({**settings, "use_unsloth": "require", "output_dir": "other"}, tmp_path, is_new=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (f"use_unsloth: require cannot be met: {REASON}; mend that, or use use_unsloth: true\n")
    assert not (tmp_path / "other").exists()


def test_a_task_that_unsloth_lacks(tiny_settings: dict[str, Any], repository: Path, run_train, tmp_path) -> None:
    settings = {**tiny_settings, "task_type": "reward", "train_file": str(repository / "data/samples/preference.jsonl")}
    refused = run_train({**settings, "use_unsloth": "require", "output_dir": "run"}, tmp_path, is_new=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    reason = SUPPORT["reward"]
    assert refused.stderr == f"use_unsloth: require cannot be met: {reason}; mend that, or use use_unsloth: true\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_failure_after_its_import(tiny_model: Path, tiny_settings: dict[str, Any], run_train, tmp_path) -> None:
    """Unsloth looks for a tokenizer beside the weights, and there is none: the process starts again without it."""
    shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*", "chat_template*"))
    settings = {**tiny_settings, "model_name_or_path": "model", "tokenizer_name_or_path": str(tiny_model)}
    settings |= {"use_unsloth": True, "max_steps": 1, "save_strategy": "no", "output_dir": "run"}
    finished = run_train(settings, tmp_path, is_new=True)
    assert finished.returncode == 0, finished.stderr
    assert "starting again with the vanilla loader" in finished.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["status"] == "finished"
    assert (manifest["loader"]["asked"], manifest["loader"]["got"]) == (True, "vanilla")
    assert manifest["loader"]["reason"].startswith("Unsloth failed in this run: ")
    assert manifest["loader"]["details"]["got"]["loader"] == "vanilla"
    assert [attempt["status"] for attempt in manifest["attempts"]] == ["failed", "finished"]

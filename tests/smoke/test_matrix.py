"""Every task, mode and loader that the tables call supported: what is saved is what was trained.

The model in memory after training, and the run folder loaded afresh, give each held-out row the same log-probability
(reward: the same score), and both loaders train the same. Unsloth's runs share one process, which it patches; on a CPU
they exercise what stands between the two, and say nothing of Unsloth's kernels.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from measured_run import MEASURED_FILE, held_out_ids, load_scored, measure, train_and_measure

from component.artifacts.metrics import read_metrics
from component.config.keys import MODES
from component.config.load import load_config
from component.models.inference import load_for_inference
from component.models.support import why_unsupported
from component.pipeline.prepare import prepare
from component.registry import LOADERS, TASKS

TASK_NAMES = TASKS.names()
FAMILY = "llama"
#: Tasks and modes whose model gets tokens that it did not have; words of the rows are among them.
WITH_NEW_TOKENS = {("sft", "full"), ("sft", "qlora"), ("dpo", "qlora")}
NEW_TOKENS = ["Translate", "Say the"]


def is_supported(task: str, loader: str) -> bool:
    return loader == "vanilla" or (find_spec("unsloth") is not None and why_unsupported(FAMILY, task) is None)


MATRIX = [
    (task, mode, loader)
    for task in TASK_NAMES
    for mode in MODES
    for loader in LOADERS.names()
    if is_supported(task, loader)
]


@pytest.fixture(scope="module")
def settings(
    task_settings: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Two steps of each task, with nothing random in them."""
    missing = set(TASK_NAMES) - task_settings.keys()
    assert not missing, f"tests/smoke/conftest.py: task_settings lacks {missing}"
    changes = {"max_steps": 2, "lora_dropout": 0.0, "save_strategy": "no"}
    of_tasks = {task: {**task_settings[task], **changes} for task in TASK_NAMES}
    # In two steps a random model hardly ever meets rewards that differ, and learns from no others.
    rewards = tmp_path_factory.mktemp("rewards") / "rewards.py"
    rewards.write_text("def letters(completions):\n    return [float(len(text)) for text in completions]\n")
    of_tasks["grpo"] |= {"reward_functions": f"{rewards}:letters", "reward_arguments": {}}
    return of_tasks


def mode_settings(task: str, mode: str) -> dict[str, Any]:
    return {"train_mode": mode, "new_tokens": NEW_TOKENS if (task, mode) in WITH_NEW_TOKENS else []}


@pytest.fixture(scope="module")
def runs(
    settings: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    train_environment: dict[str, str],
    repository: Path,
) -> Path:
    """A folder for each entry of the matrix: `vanilla/dpo-lora`, `unsloth/dpo-lora`, ..."""
    folder = tmp_path_factory.mktemp("matrix")
    asked: dict[str, list[dict[str, Any]]] = {"vanilla": [], "unsloth": []}
    for task, mode, loader in MATRIX:
        output = {**mode_settings(task, mode), "output_dir": str(folder / loader / f"{task}-{mode}")}
        asked[loader].append({**settings[task], **output, "use_unsloth": "require" if loader == "unsloth" else False})
    (folder / "settings.json").write_text(json.dumps(asked["unsloth"]), encoding="utf-8")
    with (folder / "unsloth.log").open("w", encoding="utf-8") as log:
        # Beside the vanilla runs, on another core where there is one.
        process = subprocess.Popen(
            [sys.executable, str(repository / "tests/smoke/measured_run.py"), "settings.json"],
            cwd=folder, env={**train_environment, "PYTHONPATH": str(repository)}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            for of_run in asked["vanilla"]:
                train_and_measure(of_run)
            returncode = process.wait(timeout=300)
        finally:
            process.kill()
    assert returncode == 0, (folder / "unsloth.log").read_text(encoding="utf-8")[-3000:]
    return folder


@pytest.fixture(scope="module")
def held_out(
    settings: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], list[Any]]:
    """Token ids of the held-out rows of each task and mode."""
    output = {"output_dir": str(tmp_path_factory.mktemp("held out") / "run")}
    return {
        (task, mode): held_out_ids(prepare(load_config({**settings[task], **mode_settings(task, mode), **output})))
        for task, mode in dict.fromkeys((task, mode) for task, mode, _ in MATRIX)
    }


@pytest.mark.parametrize(("task", "mode", "loader"), MATRIX)
def test_what_is_saved_is_what_was_trained(
    task: str, mode: str, loader: str, runs: Path, held_out: dict[tuple[str, str], list[Any]], tiny_model: Path
) -> None:
    folder = runs / loader / f"{task}-{mode}"
    in_memory = json.loads((folder / MEASURED_FILE).read_text(encoding="utf-8"))
    model = load_scored(folder, mode) if task == "reward" else load_for_inference(str(folder), device="cpu")[0]
    rows = held_out[task, mode]
    assert len(in_memory) == len(rows) > 1
    assert measure(model, rows) == pytest.approx(in_memory, rel=1e-5, abs=1e-5)
    assert (folder / ("model.safetensors" if mode == "full" else "adapter_model.safetensors")).is_file()
    vocabulary = load_for_inference(str(tiny_model), device="cpu")[0].config.vocab_size
    if (task, mode) in WITH_NEW_TOKENS:
        assert max(map(max, rows)) >= vocabulary, "no new token is read"
    elif task != "reward":
        start = measure(load_for_inference(str(tiny_model), device="cpu")[0], rows)
        assert start != pytest.approx(in_memory, rel=1e-4), "nothing was trained, so that saving it proves nothing"


@pytest.mark.parametrize(("task", "mode"), [(task, mode) for task, mode, loader in MATRIX if loader != "vanilla"])
def test_both_loaders_train_the_same(task: str, mode: str, runs: Path) -> None:
    vanilla, unsloth = (runs / loader / f"{task}-{mode}" for loader in ("vanilla", "unsloth"))
    manifest = json.loads((unsloth / "run.json").read_text(encoding="utf-8"))
    assert (manifest["status"], manifest["loader"]["got"]) == ("finished", "unsloth")
    expected = json.loads((vanilla / "run.json").read_text(encoding="utf-8"))
    assert manifest["loader"]["details"].get("reference") == expected["loader"]["details"].get("reference")
    compared = ("loss", "eval_loss", "rewards/margins", "eval_rewards/margins", "logps/chosen", "total_tokens")
    for one, other in zip(read_metrics(vanilla), read_metrics(unsloth), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() & set(compared):
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-4), name
    assert weights_of(unsloth).keys() == weights_of(vanilla).keys()


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = (folder / name for name in ("adapter_model.safetensors", "model.safetensors") if (folder / name).exists())
    return load_file(file)

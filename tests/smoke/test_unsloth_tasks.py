"""Tasks through Unsloth, in a process of its own that it patches: saved, loaded again, equal to the vanilla run.

On a CPU this exercises what stands between the two; of Unsloth's kernels and rewritten trainers it says nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from component.artifacts.metrics import read_metrics
from component.models.support import TASKS as SUPPORT
from component.registry import TASKS

pytestmark = pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed")

RUN_ALL = """
import json, sys
from component.pipeline import run
first, *others = json.loads(sys.argv[1])
run(first)
assert "unsloth" in sys.modules

from transformers import TrainerCallback, trainer

class OneAdapter(TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, **kwargs):
        adapters = list(getattr(model, "peft_config", {}))
        print("adapters in memory:", adapters, file=sys.stderr)
        assert adapters in ([], ["default"]), adapters

trainer.DEFAULT_CALLBACKS.append(OneAdapter)
for settings in others:
    run(settings)
"""
#: What CAUSAL tasks with a trainer of TRL are run in; pretrain and sft have tests of their own.
TRL_TASKS = [task for task in TASKS.names() if not SUPPORT[task] and task not in ("pretrain", "sft")]
MODES = ("full", "lora", "qlora")


@pytest.fixture(scope="module")
def runs(
    task_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, train_environment, repository
) -> Path:
    """A folder for each task and mode, trained by both loaders: `vanilla/dpo-lora`, `unsloth/dpo-lora`, ..."""
    from component.pipeline import run

    folder = tmp_path_factory.mktemp("loaders")
    wanted = []
    for task in TRL_TASKS:
        for mode in MODES:
            settings = {**task_settings[task], "train_mode": mode, "max_steps": 2, "lora_dropout": 0.0}
            run({**settings, "output_dir": str(folder / "vanilla" / f"{task}-{mode}")})
            wanted.append(
                {**settings, "use_unsloth": "require", "output_dir": str(folder / "unsloth" / f"{task}-{mode}")}
            )
    finished = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(wanted)],
        cwd=folder, env={**train_environment, "PYTHONPATH": str(repository)}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stderr.count("adapters in memory: ['default']") == 2 * len(TRL_TASKS), "no copy as a reference"
    return folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TRL_TASKS)
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

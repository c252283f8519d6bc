"""Both loaders train the same: the same data, the same steps, the same losses, on a CPU.

There Unsloth runs none of its kernels, so this holds our use of it alone; tests/gpu repeats it where it counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from component.artifacts.metrics import read_metrics

pytestmark = [
    pytest.mark.skipif(find_spec("unsloth") is None, reason="Unsloth is not installed"),
    pytest.mark.slow,
]

#: Nats by which the losses may differ at any step. Largest seen over 20 steps in float32: 0 (bit-equal) for both.
TOLERANCE = 1e-5

CASES = {
    "sft-qlora": {"task_type": "sft", "train_mode": "qlora", "eval_split": 4},
    "pretrain-full": {"task_type": "pretrain", "train_mode": "full", "train_file": "text.jsonl", "learning_rate": 3e-3},
}


RUN_ALL = """
import json, sys
from component.pipeline import run
for settings in json.loads(sys.argv[1]):
    run(settings)
"""


@pytest.fixture(scope="module")
def runs(
    tiny_settings: dict[str, Any], repository: Path, run_python: Callable[..., Any], train_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """`vanilla/sft-qlora`, `unsloth/sft-qlora`, ...: the runs of a loader in one process, Unsloth's in a new one."""
    folder = tmp_path_factory.mktemp("curves")
    lines = (repository / "data/demo/pretrain.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:40]
    (folder / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    options = {"cwd": folder, "env": {**train_environment, "PYTHONPATH": str(repository)}, "timeout": 300}
    for loader, use_unsloth in (("vanilla", False), ("unsloth", "require")):
        common = {**tiny_settings, "max_steps": 20, "save_strategy": "no", "use_unsloth": use_unsloth}
        settings = [{**common, **CASES[case], "output_dir": f"{loader}/{case}"} for case in CASES]
        start = partial(subprocess.run, capture_output=True, text=True) if use_unsloth else run_python
        finished = start([sys.executable, "-c", RUN_ALL, json.dumps(settings)], **options)
        assert finished.returncode == 0, finished.stderr
    assert not (folder / "unsloth_compiled_cache").exists()
    return folder


@pytest.mark.parametrize("case", CASES)
def test_both_loaders_reach_the_same_losses(case: str, runs: Path) -> None:
    manifests, curves = {}, {}
    for loader in ("vanilla", "unsloth"):
        manifests[loader] = json.loads((runs / loader / case / "run.json").read_text())
        curves[loader] = {
            (record["step"], name): record[name]
            for record in read_metrics(runs / loader / case)
            for name in ("loss", "eval_loss", "grad_norm", "supervised_tokens")
            if name in record
        }
        assert (manifests[loader]["loader"]["got"], manifests[loader]["status"]) == (loader, "finished")
    vanilla, unsloth = curves["vanilla"], curves["unsloth"]
    assert vanilla.keys() == unsloth.keys() and (20, "loss") in vanilla
    for name in ("data", "tokenizer"):
        assert manifests["vanilla"]["hashes"][name] == manifests["unsloth"]["hashes"][name]
    worst = max(abs(vanilla[place] - unsloth[place]) for place in vanilla)
    print(f"{case}: largest difference {worst:.2e}")
    assert worst <= TOLERANCE
    assert vanilla[20, "loss"] < vanilla[1, "loss"] - 0.5, "nothing was learned, so nothing was compared"

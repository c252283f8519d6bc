"""Both loaders train the same: the same data, the same steps, the same losses, on a CPU.

There Unsloth runs none of its kernels, so this holds our use of it alone; tests/gpu repeats it where it counts.
"""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("case", CASES)
def test_both_loaders_reach_the_same_losses(
    case: str, tiny_settings: dict[str, Any], repository: Path, run_train, tmp_path: Path
) -> None:
    lines = (repository / "data/demo/pretrain.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:40]
    (tmp_path / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = {**tiny_settings, "max_steps": 20, "save_strategy": "no", **CASES[case]}
    manifests, curves = {}, {}
    for loader, use_unsloth in (("vanilla", False), ("unsloth", "require")):
        finished = run_train({**settings, "use_unsloth": use_unsloth}, tmp_path, f"output_dir={loader}")
        assert finished.returncode == 0, finished.stderr
        manifests[loader] = json.loads((tmp_path / loader / "run.json").read_text())
        curves[loader] = {
            (record["step"], name): record[name]
            for record in read_metrics(tmp_path / loader)
            for name in ("loss", "eval_loss", "grad_norm", "supervised_tokens")
            if name in record
        }
        assert (manifests[loader]["loader"]["got"], manifests[loader]["status"]) == (loader, "finished")
    assert not (tmp_path / "unsloth_compiled_cache").exists()
    vanilla, unsloth = curves["vanilla"], curves["unsloth"]
    assert vanilla.keys() == unsloth.keys() and (20, "loss") in vanilla
    for name in ("data", "tokenizer"):
        assert manifests["vanilla"]["hashes"][name] == manifests["unsloth"]["hashes"][name]
    worst = max(abs(vanilla[place] - unsloth[place]) for place in vanilla)
    print(f"{case}: largest difference {worst:.2e}")
    assert worst <= TOLERANCE
    assert vanilla[20, "loss"] < vanilla[1, "loss"] - 0.5, "nothing was learned, so nothing was compared"

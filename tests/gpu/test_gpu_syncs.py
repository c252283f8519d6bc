"""Steady steps do not make the host wait for the GPU: nothing of ours does, and what libraries do is listed."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from component.models.tiny import Shape, make_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: Steps before the watch begins, and the last one that is watched.
WARM_UP, LAST = 3, 8
#: Waits that are known, by file: transformers looks whether a mask hides anything, and whether a row is packed.
KNOWN = {"masking_utils.py"}


@pytest.fixture(scope="module")
def model(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, shape=Shape(), seed=0, texts=[repository / "data/demo/pretrain.jsonl"])
    return folder


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_no_wait_in_steady_steps(
    mode: str, model: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    waits = watch(
        {
            "model_name_or_path": str(model),
            "train_file": str(repository / "data/demo/train.jsonl"),
            "output_dir": str(tmp_path / "run"),
            "cache_dir": str(tmp_path / "cache"),
            "train_mode": mode,
            "max_seq_length": 128,
            "max_steps": LAST + 1,
            "logging_strategy": "no",
            "save_strategy": "no",
            "max_bad_rows": 1.0,
        }
    )
    with capsys.disabled():
        print(f"\n{mode}: {dict(waits)}")
    assert not [place for place in waits if "/component/" in place]
    assert {Path(place.rpartition(":")[0]).name for place in waits} <= KNOWN


def watch(settings: dict[str, Any]) -> Counter[str]:
    """Train and count the waits of steps after warm-up, by file and line."""
    from transformers import TrainerCallback

    from component.config.load import load_config
    from component.pipeline.build_run import build_trainer
    from component.pipeline.load_models import load_models
    from component.pipeline.prepare import prepare

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == WARM_UP:
                torch.cuda.set_sync_debug_mode("warn")
            if state.global_step == LAST:
                torch.cuda.set_sync_debug_mode("default")

    prepared = prepare(load_config(settings))
    trainer = build_trainer(prepared, load_models(prepared)).trainer
    Path(prepared.config.run.output_dir).mkdir(parents=True, exist_ok=True)
    trainer.add_callback(Watch())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{item.filename}:{item.lineno}" for item in caught if "called a synchronizing" in str(item.message))

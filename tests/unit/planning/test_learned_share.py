"""Tokens that are not learned cost no product through the head where the loss leaves them out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from measured import LIGER, SHAPE, UNSLOTH, VANILLA

from component.config.load import load_config
from component.pipeline.plan_inputs import size_of
from component.planning.read_config import DataSize, mean_workload
from component.planning.step_time import flops

#: As many tokens a row as the workloads have, so that the share alone tells them apart.
DATA = DataSize(num_rows=1000, mean_tokens=2048.0, longest=2048, learned_share=0.6)


@pytest.mark.parametrize(
    ("workload", "is_left_out"),
    [
        (UNSLOTH, True),
        (replace(VANILLA, loss_chunk_tokens=512), True),
        (VANILLA, False),
        (LIGER, False),
        (replace(LIGER, loss_chunk_tokens=512), False),
        (replace(UNSLOTH, task="dpo"), False),
    ],
)
def test_products_of_the_head(workload, is_left_out: bool) -> None:
    packed = replace(workload, is_packed=True)
    learned, whole = (mean_workload(packed, replace(DATA, learned_share=share)) for share in (0.6, 1.0))
    saved = flops(whole) - flops(learned)
    # Forward and the gradient of the input, two operations a weight each; the head itself is frozen.
    assert saved == pytest.approx(4 * SHAPE.embedding * packed.tokens * 0.4 if is_left_out else 0)


def test_the_share_is_that_of_the_data() -> None:
    samples = SimpleNamespace(lengths=np.array([10, 30]), num_supervised_tokens=np.array([4, 6]))
    settings = {"model_name_or_path": "m", "train_file": "f", "output_dir": "o"}
    assert size_of(load_config(settings), samples).learned_share == 0.25
    assert size_of(load_config({**settings, "task_type": "dpo"}), samples).learned_share == 1

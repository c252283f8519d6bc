"""Which loader a plan is of, and what it says of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from component.config.load import load_config
from component.pipeline.plan_facts import plan_facts
from component.pipeline.plan_run import plan_config


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "unsloth (Unsloth has its own kernels for llama)"),
        (
            ["max_seq_length=16384"],
            "vanilla (max_seq_length 16384 exceeds the model's 8192 positions, and Unsloth would rescale)",
        ),
        (["use_unsloth=false"], "vanilla (use_unsloth: false)"),
        (
            ["fsdp=full_shard"],
            "vanilla (fsdp shards what the vanilla loader has loaded, and Unsloth trains on one GPU)",
        ),
    ],
)
def test_it_says_why(repository: Path, overrides: list[str], said: str) -> None:
    """Of a published model too, whose positions are known without its files."""
    config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", overrides)
    planned = plan_config(config, "4090")
    assert dict(plan_facts(planned, config).settings)["loader"] == said
    assert planned.setting.loader == said.partition(" ")[0]

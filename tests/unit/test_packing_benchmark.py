"""The data and the table of script/benchmark_packing.py; its runs need a GPU."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from statistics import mean

import pytest

from component.config.load import load_config

SCRIPT = "script/benchmark_packing.py"


@pytest.fixture(scope="module")
def suite(repository: Path) -> dict:
    return runpy.run_path(str(repository / SCRIPT))


def test_chats_have_the_lengths_that_are_named(suite: dict, tmp_path: Path) -> None:
    """One token a word; the mean of 4,000 is within 5 % of 330, and the longest are cut at 2,048."""
    files = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for file in files:
        suite["write_chats"](file, num_rows=4000, max_tokens=2048)
    assert files[0].read_bytes() == files[1].read_bytes()
    turns = [json.loads(line)["conversation"][0] for line in files[0].read_text(encoding="utf-8").splitlines()]
    lengths = [sum(len(text.split()) for text in turn.values()) + suite["FRAME_TOKENS"] for turn in turns]
    assert mean(lengths) == pytest.approx(suite["MEAN_TOKENS"], rel=0.05)
    assert max(lengths) == 2048


def test_each_variant_is_a_config(suite: dict, repository: Path) -> None:
    """Keys are known and fit together."""
    assert len(suite["VARIANTS"]) == 8
    for variant in suite["VARIANTS"].values():
        overrides = [f"{key}={value}" for key, value in {**variant.keys, "use_unsloth": variant.use_unsloth}.items()]
        config = load_config(repository / "train_args/sft/qlora/llama3-8b.json", overrides)
        assert config.training.packing is ("packing" in variant.keys)


def test_a_row_of_the_table(suite: dict) -> None:
    metrics = {
        "real_tokens_per_second": 1234.5, "padded_tokens_per_second": 2469.0,
        "peak_allocated_bytes": 2**30, "peak_reserved_bytes": 2**31,
    }  # fmt: skip
    details = {"packing": {"attention": None}, "got": {"attn_implementation": "sdpa"}}
    row = suite["row"]("padded", {"metrics": metrics, "details": details, "seconds": 59.6})
    assert row == "| padded | 1,234 | 50% | 1.00 | 2.00 | sdpa | 60 |"

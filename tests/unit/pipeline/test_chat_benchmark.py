"""Suite `chat`: its rows have the lengths that are named, and each of its lines is a config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.pipeline.benchmark.case import TRAIN, Rows
from component.pipeline.benchmark.chat_cases import VARIANTS
from component.pipeline.benchmark.chat_suite import add_options, build_cases
from component.pipeline.benchmark.rows import one_token_words, write_rows


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_chats_have_the_lengths_that_are_named(tiny_model: Path, tmp_path: Path) -> None:
    """Counted by the model's tokenizer, template included: the mean of 1,000 is within 6 %, the longest are cut."""
    from transformers import AutoTokenizer

    tokenizer, words = AutoTokenizer.from_pretrained(tiny_model), one_token_words(tiny_model)
    files = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for file in files:
        write_rows(file, Rows("chat", 1000, 2048, 330), words)
    assert files[0].read_bytes() == files[1].read_bytes()
    lengths = []
    for line in files[0].read_text(encoding="utf-8").splitlines():
        (turn,) = json.loads(line)["conversation"]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn["human"]}, {"role": "assistant", "content": turn["assistant"]}],
            tokenize=False,
        )
        lengths.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    assert mean(lengths) == pytest.approx(330, rel=0.06)
    assert 2000 < max(lengths) <= 2048 + 10


def test_full_rows_fill_their_length(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", Rows("full", 3, 256), one_token_words(tiny_model))
    turns = [json.loads(line)["conversation"][0] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert all(len(turn["human"].split()) + len(turn["assistant"].split()) >= 256 for turn in turns)


@pytest.mark.parametrize("rows", VARIANTS)
def test_each_line_is_a_config(rows: str) -> None:
    """Those of train.py have keys that are known and fit together; what a baseline reads is there."""
    cases = build_cases(options("--rows", rows, "--cases", *VARIANTS[rows]))
    assert len(cases) == len({case.key for case in cases}) == {"chat": 21, "full": 11}[rows]
    for case in cases:
        files = {"model_name_or_path": "m", "train_file": "data/dummy_data.jsonl", "output_dir": "o"}
        if case.program == TRAIN:
            assert load_config({**case.settings, **files}).training.packing == case.settings.get("packing", False)


def test_a_line_of_other_rows_is_refused() -> None:
    said = """--cases: 'Lampyris, packed' is none of --rows full; there are "Firefly's recipe"; "Unsloth's trainer"; """
    with pytest.raises(UserError, match=said):
        build_cases(options("--rows", "full", "--cases", "Lampyris, packed"))


def test_a_cap_is_part_of_every_case() -> None:
    assert {case.settings["max_memory_gib"] for case in build_cases(options("--max_memory_gib", "16"))} == {16.0}

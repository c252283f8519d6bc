"""Preferences against TRL: the tokens of prompt, chosen and rejected, and what is said of those that TRL gets wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from component.config.schema import DataSection
from component.data.encoders.build import build_row_encoder
from component.data.formats.preference import Preference
from component.data.render import Renderer
from component.data.rows import PreparedPair, Row, RowError, Source
from component.data.templates import load_chat_template

NUM_ROWS = 40
TEXTS = [
    {"prompt": "The sun rises in the", "chosen": " east.", "rejected": " afternoon."},
    {"prompt": "Q: 1 + 1?\nA:", "chosen": " 2", "rejected": " 3, or more.\n"},
]
#: The end of the prompt is one token with the beginning of an answer: TRL warns, and compares answers to two prompts.
MERGED = {"prompt": "Say t", "chosen": "he end.", "rejected": "!"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def rows(test_assets: Path) -> list[Row]:
    records = json.loads((test_assets / "real_data" / "dpo_en_demo.json").read_text(encoding="utf-8"))
    return [Preference.parse(record, Source("f", line)) for line, record in enumerate(records[:NUM_ROWS], start=1)]


def encode(tokenizer: PreTrainedTokenizerBase, rows: list[Row]) -> list[Any]:
    renderer = Renderer(tokenizer, load_chat_template("auto", tokenizer))
    section = DataSection(train_file=["f"], max_seq_length=10**6)
    encoded = build_row_encoder(section, "preference", tokenizer, renderer).encode_rows(rows)
    return [item if isinstance(item, RowError) else item.samples[0] for item in encoded]


def as_trl(row: Row) -> dict[str, Any]:
    parts = {"prompt": row.messages, "chosen": row.chosen, "rejected": row.rejected}
    return {name: [message.as_template_message() for message in messages] for name, messages in parts.items()}


def check_equal(pair: PreparedPair, theirs: dict[str, list[int]]) -> None:
    start = pair.chosen.spans[0][0]
    assert list(pair.chosen.input_ids[:start]) == list(pair.rejected.input_ids[:start]) == theirs["prompt_ids"]
    assert list(pair.chosen.input_ids[start:]) == theirs["chosen_ids"]
    assert list(pair.rejected.input_ids[start:]) == theirs["rejected_ids"]


def dpo_rows(model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], folder: Path) -> Dataset:
    config = DPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, max_length=None, report_to="none")
    return DPOTrainer(
        str(model), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    ).train_dataset


def test_conversations_are_those_of_trl(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[Row], tmp_path: Path
) -> None:
    theirs = dpo_rows(tiny_model, tokenizer, [as_trl(row) for row in rows], tmp_path)
    assert len(theirs) == len(rows) == NUM_ROWS
    for pair, other in zip(encode(tokenizer, rows), theirs, strict=True):
        check_equal(pair, other)


def test_texts_are_those_of_trl(tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    theirs = dpo_rows(tiny_model, tokenizer, [*TEXTS, MERGED], tmp_path)
    records = [Preference.parse(record, Source("f", 1)) for record in (*TEXTS, MERGED)]
    *pairs, merged = encode(tokenizer, records)
    for pair, other in zip(pairs, theirs, strict=False):
        check_equal(pair, other)
    ids = tokenizer(MERGED["prompt"] + MERGED["chosen"])["input_ids"]
    assert theirs[len(TEXTS)]["prompt_ids"] != ids[: len(theirs[len(TEXTS)]["prompt_ids"])]
    assert str(merged).startswith("different prompts: ")


def test_the_reward_model_sees_whole_conversations(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[Row], tmp_path: Path
) -> None:
    config = RewardConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=None, report_to="none")
    data = Dataset.from_list([as_trl(row) for row in rows])
    trainer = RewardTrainer(str(tiny_model), args=config, train_dataset=data, processing_class=tokenizer)
    for pair, other in zip(encode(tokenizer, rows), trainer.train_dataset, strict=True):
        assert list(pair.chosen.input_ids) == other["chosen_ids"]
        assert list(pair.rejected.input_ids) == other["rejected_ids"]

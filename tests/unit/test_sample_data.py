"""The sample files: what the generator writes, no repeats, short enough, and documented as they are."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from component.data.formats.detect import detect_format
from component.data.rows import Source
from component.registry import FORMATS

MAX_TOKENS = 1024
FILES = {
    "dummy_data.jsonl": ("firefly", 50),
    "dummy_data_chatglm3.jsonl": ("firefly", 10),
    "dummy_dpo.jsonl": ("preference", 12),
    "pretrain/dummy_pretrain.jsonl": ("text", 16),
    "samples/alpaca.json": ("alpaca", 6),
    "samples/sharegpt.jsonl": ("sharegpt", 5),
    "samples/openai.jsonl": ("openai", 5),
    "samples/qa.jsonl": ("qa", 5),
    "samples/prompt_completion.jsonl": ("prompt_completion", 5),
    "samples/segments.jsonl": ("segments", 4),
    "samples/kto.jsonl": ("kto", 6),
    "samples/prompt_only.jsonl": ("prompt_only", 5),
    "samples/preference.jsonl": ("preference", 5),
    "demo/train.jsonl": ("firefly", 240),
    "demo/held_out.jsonl": ("firefly", 48),
    "demo/pretrain.jsonl": ("text", 1200),
}


def read(path: Path) -> list[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    return json.loads(content) if path.suffix == ".json" else [json.loads(line) for line in content.splitlines()]


@pytest.fixture(scope="module")
def generator(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo_data", repository / "data/demo/make_demo_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_sample_file_is_listed_here(repository: Path) -> None:
    shipped = {str(path.relative_to(repository / "data")) for path in (repository / "data").rglob("*.json*")}
    assert shipped == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_rows_are_counted_distinct_and_short(repository: Path, name: str) -> None:
    rows = read(repository / "data" / name)
    lines = [json.dumps(row, sort_keys=True) for row in rows]
    assert len(rows) == FILES[name][1]
    if not name.startswith("demo/pretrain"):
        assert len(set(lines)) == len(lines)
    # One token a byte is a byte-level tokenizer's worst, and quotes and keys outweigh a template's tokens.
    assert max(len(json.dumps(row, ensure_ascii=False).encode()) for row in rows) <= MAX_TOKENS


def test_every_format_has_a_sample() -> None:
    assert {data_format for data_format, _ in FILES.values()} == set(FORMATS.names())


@pytest.mark.parametrize("name", FILES)
def test_every_row_parses_without_a_notice(repository: Path, name: str) -> None:
    data_format = FORMATS.get(FILES[name][0])
    for number, record in enumerate(read(repository / "data" / name), start=1):
        assert data_format.looks_like(record)
        assert data_format.parse(record, Source(name, number)).notices == ()


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_detected(repository: Path, name: str) -> None:
    data_format = FILES[name][0]
    records = read(repository / "data" / name)[:20]
    assert detect_format(records, FORMATS.get(data_format).row_kind, name) == data_format


def test_preference_pairs_share_their_prompt(repository: Path) -> None:
    for row in read(repository / "data/dummy_dpo.jsonl"):
        prompt = {"role": "user", "content": row["prompt"]}
        assert row["chosen"][0] == row["rejected"][0] == prompt
        assert row["chosen"] == row["messages"]
        assert row["chosen"][1]["content"] != row["rejected"][1]["content"]
        assert row["score_chosen"] > row["score_rejected"]


def test_examples_in_the_readme_are_rows_of_the_files(repository: Path) -> None:
    readme = (repository / "data/README.md").read_text(encoding="utf-8")
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", readme, re.DOTALL)]
    rows = [row for name in FILES if not name.startswith("demo/") for row in read(repository / "data" / name)]
    assert len(examples) == 18
    for example in examples:
        assert any(example.items() <= row.items() for row in rows), example


def test_demo_files_are_what_the_generator_writes(repository: Path, generator: ModuleType, tmp_path: Path) -> None:
    generator.write(tmp_path, generator.build())
    for name in ("train.jsonl", "held_out.jsonl", "pretrain.jsonl"):
        assert (tmp_path / name).read_bytes() == (repository / "data/demo" / name).read_bytes()


def test_held_out_questions_need_composition(generator: ModuleType) -> None:
    files = generator.build()
    held_out = [row["conversation"][0] for row in files["held_out.jsonl"]]
    train = [row["conversation"][0] for row in files["train.jsonl"]]
    answers = {turn["assistant"] for turn in held_out}
    assert len(answers) == len(held_out)
    assert not answers & {turn["assistant"] for turn in train}
    texts = " ".join(row["text"] for row in files["pretrain.jsonl"])
    assert not [answer for answer in answers if answer in texts]
    trained_words = {word for turn in train for word in turn["assistant"].split()}
    assert {word for answer in answers for word in answer.split()} <= trained_words


def test_glow_says_the_animal_first(generator: ModuleType) -> None:
    assert generator.translate(("three", "red", "beetles")) == "belu rul tri"

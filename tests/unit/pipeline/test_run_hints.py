"""Hints that need the table of families, the machine or the data, on prepared runs of a tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from component.config.choices import HINT_KEYS
from component.config.load import load_config
from component.pipeline.hints import MODEL_HINTS, RUN_HINTS, check_hints, run_hints
from component.pipeline.prepare import prepare

Hints = Callable[..., list[str]]
BASE, CHAT = "mistralai/Mistral-7B-v0.3", "Qwen/Qwen3-8B"


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def turns(count: int, *, words: int = 1) -> list[dict[str, Any]]:
    """Conversations that differ, all but the last of about the same length; the last one is `words` long."""
    texts = [f"number {index}" for index in range(count - 1)] + [" ".join(["word"] * words)]
    return [{"messages": [{"role": role, "content": text} for role in ("user", "assistant")]} for text in texts]


@pytest.fixture
def given(tiny_settings: dict[str, Any], tmp_path: Path) -> Hints:
    """The hints of a prepared run, but for those on the rate that tiny models are trained with."""

    def hints(**changes: Any) -> list[str]:
        settings = {**tiny_settings, "accepted_hints": "learning_rate", "output_dir": str(tmp_path / "run")}
        return [str(hint).removeprefix("config: ") for hint in prepare(load_config({**settings, **changes})).hints]

    return hints


def check(**values: Any) -> list[str]:
    config = load_config({"train_file": "d", "output_dir": "o", "train_mode": "lora", **values})
    return [str(hint).removeprefix("config: ") for hint in check_hints(config)]


def test_a_base_model_with_tokens_that_it_never_saw() -> None:
    for name in ("chatml", "auto", "mine.jinja"):
        assert check(model_name_or_path=BASE, template_name=name) == [
            f"template_name: {BASE} is a base model that never saw the control tokens of a chat template, and an "
            "adapter does not train their embeddings; use template_name: default, or its chat model"
        ]
    for fine in (
        {"template_name": "default"},
        {"template_name": "vicuna"},
        {"template_name": "chatml", "train_mode": "full"},
        {"template_name": "chatml", "modules_to_save": ["embed_tokens", "lm_head"]},
        {"task_type": "pretrain"},
    ):
        assert check(model_name_or_path=BASE, **fine) == [], fine
    assert check(model_name_or_path="Qwen/Qwen3-8B-Base", template_name="chatml") == []


def test_a_chat_model_with_another_template() -> None:
    assert check(model_name_or_path=CHAT, template_name="default") == [
        f"template_name: {CHAT} knows a chat template of its own, and default is another; use template_name: auto"
    ]
    assert check(model_name_or_path=CHAT) == []


def test_a_run_that_ends_before_its_first_evaluation(given: Hints) -> None:
    assert given(eval_split=6, eval_steps=50) == [
        "eval_steps: the run of 2 steps ends before its first evaluation at step 50; use a share such as 0.1"
    ]
    for packing in (True, "auto"):
        assert given(eval_split=6, eval_steps=2, packing=packing) == [
            "eval_steps: the run of 1 steps ends before its first evaluation at step 2; use a share such as 0.1"
        ]
    assert given(eval_split=6, eval_steps=2) == given(eval_split=6, eval_steps=0.5) == []


def test_evaluation_rows_that_are_trained_on(given: Hints, tmp_path: Path) -> None:
    rows = turns(20)
    train = write(tmp_path, "train.jsonl", rows[:15])
    assert given(train_file=train, eval_file=write(tmp_path, "eval.jsonl", rows[12:])) == [
        "eval_file: 3 of 8 evaluation rows equal a training row, so eval_loss says how well they were learned by "
        "heart; remove them from one of both"
    ]
    assert given(train_file=train, eval_file=write(tmp_path, "other.jsonl", rows[15:])) == []
    assert given(train_file=train, eval_file=train) == [
        f"eval_file: {train} is in train_file too, so eval_loss says how well it was learned by heart; name rows that "
        "are not trained on, or use eval_split: 0.05"
    ], "said once"


def test_a_split_of_rows_that_repeat_names_its_own_key(given: Hints, tmp_path: Path) -> None:
    train = write(tmp_path, "train.jsonl", turns(10) * 2)
    (hint,) = given(train_file=train, eval_split=4)
    assert re.fullmatch(
        r"eval_split: \d of 4 evaluation rows equal a training row, so eval_loss says how well they were learned by "
        r"heart; train_file holds them more than once: keep each row once",
        hint,
    ), hint
    assert given(train_file=train, eval_split=4, accepted_hints=["learning_rate", "eval_split"]) == []


def test_short_samples_in_rows_of_their_own(given: Hints, tmp_path: Path) -> None:
    file = write(tmp_path, "many.jsonl", turns(1000, words=40))
    (hint,) = given(train_file=file, max_seq_length=256)
    assert hint.startswith("packing: samples have ") and hint.endswith(
        " tokens on average, and max_seq_length 256 is planned for; packing: auto fills rows with several; each counts "
        "as one in batch sizes"
    )
    few = write(tmp_path, "few.jsonl", turns(999, words=40))
    for fine in ({"packing": True, "max_steps": 9}, {"max_seq_length": 128}, {"train_file": few}):
        assert given(**{"train_file": file, "max_seq_length": 256, **fine}) == [], fine


def test_packed_rows_make_few_steps(given: Hints, tmp_path: Path) -> None:
    """640 samples of about 12 tokens, 16 rows a step: 40 steps an epoch, and few where a row holds several samples."""
    rows = {"train_file": write(tmp_path, "rows.jsonl", turns(640)), "max_seq_length": 256, "packing": True}
    sizes = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    (hint,) = (hint for hint in given(**rows, **sizes) if hint.startswith("packing: "))
    found = re.fullmatch(
        r"packing: rows hold several samples, so that the run has (\d+) steps of 16 rows instead of 120; "
        r"rows a step: (\d+) learns from about as many samples a step as before",
        hint,
    )
    assert found is not None, hint
    num_steps, fewer = map(int, found.groups())
    assert num_steps < 100 and fewer == max(1, round(16 * num_steps / 120))
    for fine in ({"max_steps": 5}, {"num_train_epochs": 200}, {"packing": False}, {"accepted_hints": ["packing"]}):
        assert not any("several samples" in hint for hint in given(**{**rows, **sizes, **fine})), fine


def test_a_limit_that_no_sample_comes_near(given: Hints, tmp_path: Path) -> None:
    file = write(tmp_path, "many.jsonl", turns(1000))
    (hint,) = given(train_file=file, max_seq_length=512)
    assert hint.startswith("max_seq_length: the longest of 1,000 samples has ")
    assert hint.endswith(" tokens, and 512 are planned for; use 32")
    assert given(train_file=file, max_seq_length=64) == []


def test_many_rows_are_cut(given: Hints, tmp_path: Path) -> None:
    file = write(tmp_path, "long.jsonl", [*turns(18), *turns(1, words=60), *turns(1, words=70)])
    assert given(train_file=file, max_seq_length=64, truncation="keep_end") == [
        "max_seq_length: 2 of 20 rows are cut at 64 tokens; raise it, or use truncation: split_turns with sft"
    ]
    assert given(train_file=file, max_seq_length=512, truncation="keep_end") == []


@pytest.mark.parametrize(
    ("num_good", "num_bad", "weights", "hint"),
    [
        (
            9,
            3,
            {},
            "desirable_weight: 9 good and 3 bad answers weigh 3 to 1; use 0.333, so that both kinds weigh alike",
        ),
        (9, 3, {"desirable_weight": 0.333}, None),
        (9, 3, {"undesirable_weight": 3}, None),
        (6, 6, {}, None),
        (
            5,
            0,
            {},
            "desirable_weight: all 5 answers are good, and nothing shows the difference; add answers of the other kind",
        ),
    ],
)
def test_answers_of_one_kind(
    given: Hints, tmp_path: Path, num_good: int, num_bad: int, weights: dict[str, float], hint: str | None
) -> None:
    labels = [True] * num_good + [False] * num_bad
    rows = [{"prompt": f"Is {index} even?", "completion": "Yes.", "label": label} for index, label in enumerate(labels)]
    expected = [] if hint is None else [hint]
    assert given(task_type="kto", train_file=write(tmp_path, "kto.jsonl", rows), **weights) == expected


def test_float16_where_the_hardware_has_bfloat16(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**tiny_settings, "accepted_hints": "learning_rate", "output_dir": str(tmp_path / "run"), "bf16": None}
    prepared = prepare(load_config({**settings, "fp16": True}))
    hardware = replace(prepared.hardware, name="test A100", supports_bf16=True)
    assert [hint.key for hint in run_hints(prepared.config, hardware, prepared.data, num_rows=22)] == ["fp16"]
    assert run_hints(prepared.config, replace(hardware, supports_bf16=False), prepared.data, num_rows=22) == ()
    assert run_hints(load_config(settings), hardware, prepared.data, num_rows=22) == ()


def test_the_tables_are_whole() -> None:
    """The tests above and those of the config have a case for each key that hints are about."""
    names = [rule.__name__ for rule in (*MODEL_HINTS, *RUN_HINTS)]
    assert len(set(names)) == len(names) == 10
    assert sorted(HINT_KEYS) == list(HINT_KEYS)

"""Preparation from files to samples: nothing is lost without being counted and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from component.config.errors import DataError, UserError
from component.config.schema import DataSection
from component.data.content_controls import CONTROL_TOKENS_AS_TEXT
from component.data.encoders.build import build_row_encoder
from component.data.fingerprint import hash_tokenizer
from component.data.prepare import PreparedData, prepare_data
from component.data.render import Renderer
from component.data.report import Lengths, reason_category
from component.data.templates import load_chat_template


@pytest.fixture(scope="module")
def tokenizer(byte_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return byte_tokenizer


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerFast) -> Renderer:
    return Renderer(tokenizer, load_chat_template("auto", tokenizer))


@pytest.fixture()
def prepare(tmp_path: Path, renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PreparedData]:
    """Prepares conversations, given as the lines or the objects of train.jsonl."""
    monkeypatch.chdir(tmp_path)

    def prepare(rows: list[Any], **options: Any) -> PreparedData:
        write("train.jsonl", rows)
        return encode(DataSection(train_file=["train.jsonl"], **options), renderer)

    return prepare


def encode(section: DataSection, renderer: Renderer) -> PreparedData:
    """Prepare conversations."""
    return prepare_data(section, build_row_encoder(section, "messages", renderer.tokenizer, renderer))


def write(name: str, rows: list[Any]) -> None:
    Path(name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def row(question: str, answer: str) -> dict[str, Any]:
    return {"conversation": [{"human": question, "assistant": answer}]}


def rows(count: int) -> list[dict[str, Any]]:
    return [row(f"q{index}", f"answer {index}") for index in range(count)]


def check_identity(data: PreparedData) -> None:
    for report in (data.report, data.eval_report):
        if report is not None:
            assert report.rows_read == report.rows_used + report.rows_dropped
            assert sum(report.dropped_by_reason.values()) == report.rows_dropped


def test_samples(prepare: Callable[..., PreparedData], tokenizer: PreTrainedTokenizerFast) -> None:
    data = prepare([row("ab", "cde"), "", row("f", "g")])
    sample = data.train[0]
    assert tokenizer.decode(sample.input_ids) == "<s><user>ab</s><bot>cde</s>"
    assert tokenizer.decode([label for label in sample.labels() if label != -100]) == "cde</s>"
    assert [str(sample.source) for sample in data.train] == ["train.jsonl:1", "train.jsonl:3"]
    report = data.report
    assert (report.rows_read, report.rows_used, report.rows_dropped) == (2, 2, 0)
    assert (report.num_samples, report.num_tokens, report.num_supervised_tokens) == (2, 17, 6)
    assert report.lengths == Lengths(7, 7, 10, 10, 10)
    assert (list(data.evaluation), data.eval_report) == ([], None)
    check_identity(data)


def test_bad_rows_are_counted_and_named(prepare: Callable[..., PreparedData]) -> None:
    bad = [row("q", " "), '{"conversation": ', row("q", ""), {"conversation": None}]
    data = prepare([*rows(3), *bad, {"systm": "s", "tag": 1, **row("a", "b")}], max_bad_rows=0.5)
    assert [str(failure) for failure in data.report.failures] == [
        "train.jsonl:4: empty answer: turn 1",
        "train.jsonl:5: bad JSON: expecting value, column 18",
        "train.jsonl:6: empty answer: turn 1",
        "train.jsonl:7: null conversation",
    ]
    lines = data.report.lines()
    assert lines[0] == "train: kept 4  truncated 0  dropped 4 (2 empty answer, 1 bad JSON, 1 null conversation)"
    assert "train: train.jsonl: 8 rows, firefly (detected)" in lines
    assert "train: columns not read: systm (1 row), tag (1 row)" in lines
    assert "train: key 'systm' is not read; did you mean system? (1 row)" in lines
    check_identity(data)


def test_too_many_bad_rows(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(DataError) as caught:
        prepare([row("q", "")] * 6 + rows(94), max_bad_rows=0.05)
    assert caught.value.messages == (
        "train_file: 6 of 100 rows cannot be used (6 empty answer), a share of 0.0600; max_bad_rows allows 0.05: "
        "correct the data, or raise max_bad_rows",
        *(f"train.jsonl:{line}: empty answer: turn 1" for line in range(1, 6)),
        "and 1 more; python script/inspect_data.py --train_args_file CONFIG --failures FILE lists all",
    )
    assert prepare([row("q", "")] * 6 + rows(94), max_bad_rows=0.06).report.rows_used == 94


@pytest.mark.parametrize(
    ("num_empty", "options", "remedy"),
    [
        (1, {}, "raise max_seq_length or set truncation (keep_start, keep_end, split_turns), correct the data"),
        (3, {}, "correct the data, raise max_seq_length or set truncation (keep_start, keep_end, split_turns)"),
        (0, {"truncation": "split_turns"}, "raise max_seq_length or set truncation (keep_start, keep_end)"),
        (0, {"task_type": "kto"}, "raise max_seq_length or set truncation (keep_start, keep_end)"),
    ],
)
def test_rows_that_are_too_long_are_not_for_the_data_alone(
    prepare: Callable[..., PreparedData], num_empty: int, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepare([row("q", "")] * num_empty + [row("q", "a" * 40)] * 2 + rows(3), max_seq_length=20, **options)
    assert caught.value.messages[0].endswith(f"max_bad_rows allows 0.01: {remedy}, or raise max_bad_rows")


def test_no_usable_row(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(DataError) as caught:
        prepare([row("q", ""), "{"], max_bad_rows=1.0)
    assert caught.value.messages == (
        "train_file: no usable row: 2 of 2 rows cannot be used (1 empty answer, 1 bad JSON); correct the data",
        "train.jsonl:1: empty answer: turn 1",
        "train.jsonl:2: bad JSON: expecting property name enclosed in double quotes, column 2",
    )
    with pytest.raises(DataError) as caught:
        prepare(["", "  "])
    assert str(caught.value) == "train_file: train.jsonl holds no rows; put data there or name another file"


def test_broken_rows_at_the_start_do_not_hide_the_format(prepare: Callable[..., PreparedData]) -> None:
    data = prepare(["{"] * 30 + rows(5), max_bad_rows=1.0)
    assert (data.report.rows_used, data.report.files[0].data_format) == (5, "firefly")
    check_identity(data)


def test_every_file_has_a_format_of_its_own(prepare: Callable[..., PreparedData], renderer: Renderer) -> None:
    prepare(rows(2))
    Path("b.json").write_text('[\n{"instruction": "a", "output": "b"}\n]')
    Path("empty.jsonl").write_text("")
    section = DataSection(train_file=["train.jsonl", "b.json", "empty.jsonl"])
    data = encode(section, renderer)
    assert [(file.path, file.rows, file.data_format) for file in data.report.files] == [
        ("train.jsonl", 2, "firefly"),
        ("b.json", 1, "alpaca"),
        ("empty.jsonl", 0, None),
    ]
    assert str(data.train[2].source) == "b.json:2"
    assert data.report.notices == ("empty.jsonl holds no rows",)


def test_a_wrong_format_is_refused(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(DataError, match="train.jsonl: data_format: the rows are not openai; this looks like firefly"):
        prepare(rows(2), data_format="openai")
    assert prepare(rows(2), data_format="firefly").report.files[0].is_detected is False


# Tokens of a row: <s> <user> q </s> <bot> a </s>, one for each letter of question and answer.
def test_over_long_rows_are_dropped(prepare: Callable[..., PreparedData]) -> None:
    data = prepare([row("q", "a" * 10), row("q", "a" * 11)], max_seq_length=16, max_bad_rows=1.0)
    assert [sample.length for sample in data.train] == [16]
    assert [str(failure) for failure in data.report.failures] == [
        "train.jsonl:2: over max_seq_length: 17 tokens, 16 allowed"
    ]
    assert data.report.dropped_by_reason == {"over max_seq_length": 1}


def test_over_long_rows_are_cut(prepare: Callable[..., PreparedData], tokenizer: PreTrainedTokenizerFast) -> None:
    two_turns = {"conversation": [{"human": "q", "assistant": "a"}, {"human": "p" * 20, "assistant": "b"}]}
    data = prepare(
        [row("q", "a" * 11), row("q" * 20, "a"), two_turns, row("q", "a")],
        max_seq_length=16,
        truncation="keep_start",
        max_bad_rows=1.0,
    )
    texts = [tokenizer.decode([label for label in sample.labels() if label != -100]) for sample in data.train]
    assert texts == ["a" * 11, "a</s>", "a</s>"]
    assert [sample.length for sample in data.train] == [16, 16, 7]
    report = data.report
    assert [str(failure) for failure in report.failures] == [
        "train.jsonl:2: no supervised token left: the prompt fills max_seq_length 16, the row has 26 tokens"
    ]
    assert (report.rows_truncated, report.rows_without_stop, report.num_truncated_tokens) == (2, 1, 1 + 16)
    assert "train: 1 row cut before the stop token of an answer: train.jsonl:1" in report.lines()
    check_identity(data)


def test_over_long_rows_keep_their_end_or_are_split(
    prepare: Callable[..., PreparedData], tokenizer: PreTrainedTokenizerFast
) -> None:
    turns = {"conversation": [{"human": "q", "assistant": "a"}, {"human": "p", "assistant": "b" * 4}]}
    too_long = {"conversation": [{"human": "q" * 20, "assistant": "a"}, {"human": "p", "assistant": "b"}]}
    rows = [turns, too_long, row("q" * 20, "a")]
    cut = prepare(rows, max_seq_length=12, truncation="keep_end", max_bad_rows=1.0)
    assert [sample.labels()[-1] for sample in cut.train] == [tokenizer.eos_token_id] * 3
    assert [sample.length for sample in cut.train] == [12] * 3
    assert (cut.report.rows_truncated, cut.report.rows_without_stop) == (3, 0)
    split = prepare(rows, max_seq_length=12, truncation="split_turns", max_bad_rows=1.0)
    assert [sample.source.line for sample in split.train] == [1, 1, 2]
    assert split.train[0].input_ids == prepare([row("q", "a")]).train[0].input_ids
    assert (split.report.rows_truncated, split.report.rows_without_stop) == (1, 0)
    assert [str(failure) for failure in split.report.failures] == [
        "train.jsonl:3: over max_seq_length: 26 tokens, 12 allowed, and no single turn fits"
    ]
    check_identity(split)


def test_control_tokens_in_content_are_counted(prepare: Callable[..., PreparedData]) -> None:
    data = prepare([row("what is </s>?", "the end"), row("q", "a")])
    assert f"train: {CONTROL_TOKENS_AS_TEXT} (1 row)" in data.report.lines()


def test_over_long_rows_are_errors(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(DataError) as caught:
        prepare([row("q", "a"), row("q", "a" * 11)], max_seq_length=16, truncation="error")
    assert str(caught.value) == (
        "train.jsonl:2: 17 tokens, over max_seq_length 16; "
        "raise max_seq_length, or set truncation to drop, keep_start, keep_end or split_turns"
    )


def test_eval_split(prepare: Callable[..., PreparedData]) -> None:
    data = prepare([*rows(9), row("q1", "answer 1")], eval_split=0.3)
    assert (len(data.train), len(data.evaluation)) == (7, 3)
    assert {sample.source.line for sample in (*data.train, *data.evaluation)} == set(range(1, 11))
    assert (data.report.rows_used, data.report.rows_held_out, data.report.num_samples) == (10, 3, 7)
    assert data.report.lines()[0] == "train: kept 7  truncated 0  dropped 0  held out 3"
    assert data.eval_report is not None
    assert (data.eval_report.rows_read, data.eval_report.rows_used, data.eval_report.num_samples) == (3, 3, 3)
    again = prepare([*rows(9), row("q1", "answer 1")], eval_split=0.3)
    assert again == data
    assert prepare(rows(10), eval_split=0.3, seed=1).evaluation != prepare(rows(10), eval_split=0.3).evaluation
    check_identity(data)


def test_rows_in_train_and_eval_are_counted(prepare: Callable[..., PreparedData]) -> None:
    write("eval.jsonl", [*rows(2), row("new", "row"), row("new", "")])
    data = prepare(rows(5), eval_file=["eval.jsonl"], max_bad_rows=0.25)
    assert data.eval_report is not None
    assert (data.eval_report.rows_read, data.eval_report.rows_used, data.eval_report.rows_also_in_train) == (4, 3, 2)
    assert "evaluation: 2 rows also in the training data" in data.eval_report.lines()
    with pytest.raises(DataError, match="^eval_file: 1 of 4 rows cannot be used"):
        prepare(rows(5), eval_file=["eval.jsonl"])


def test_documents(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("abcdefghij")
    write("b.jsonl", [{"text": "xy"}, {"text": " "}])
    section = DataSection(train_file=["a.txt", "b.jsonl"], max_seq_length=4, max_bad_rows=1.0)
    data = prepare_data(section, build_row_encoder(section, "text", tokenizer, None))
    assert [tokenizer.decode(sample.input_ids) for sample in data.train] == ["abcd", "defg", "ghij", "j</s>", "xy</s>"]
    supervised = [[label for label in sample.labels() if label != -100] for sample in data.train]
    assert [tokenizer.decode(labels) for labels in supervised] == ["bcd", "efg", "hij", "</s>", "y</s>"]
    assert (data.report.rows_read, data.report.rows_used, data.report.num_samples) == (3, 2, 5)
    assert data.report.num_supervised_tokens == sum(map(len, supervised))
    assert [str(failure) for failure in data.report.failures] == ["b.jsonl:2: empty text"]
    check_identity(data)


def test_the_report_is_json(prepare: Callable[..., PreparedData]) -> None:
    report = prepare([*rows(3), "{"], max_bad_rows=1.0).report.to_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["failures"] == [
        {
            "source": "train.jsonl:4",
            "reason": "bad JSON: expecting property name enclosed in double quotes, column 2",
        }
    ]
    assert report["files"][0]["rows"] == 4
    assert report["lengths"] == {"minimum": 15, "p50": 15, "p90": 15, "p99": 15, "maximum": 15}


def test_the_fingerprint_sees_every_change(prepare: Callable[..., PreparedData], tmp_path: Path) -> None:
    first = prepare(rows(5)).fingerprint
    assert prepare(rows(5)).fingerprint == first
    changes = [
        prepare([*rows(4), row("q4", "answer 5")]),
        prepare(rows(6)),
        prepare(rows(5), max_seq_length=100),
        prepare(rows(5), truncation="keep_start"),
        prepare(rows(5), eval_split=2),
        prepare(rows(5), eval_split=2, seed=1),
        prepare(rows(5), eval_file=["train.jsonl"]),
    ]
    assert len({first, *(data.fingerprint for data in changes)}) == 8
    assert prepare(rows(5), seed=1, max_bad_rows=1.0).fingerprint == first


def test_the_hash_of_a_tokenizer_is_of_what_it_does(tokenizer: PreTrainedTokenizerFast) -> None:
    before = hash_tokenizer(tokenizer)
    tokenizer(["a", "bc"], padding=True, truncation=True, max_length=8)
    assert hash_tokenizer(tokenizer) == before
    other = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<bot>")
    assert hash_tokenizer(other) != before


def test_lengths_and_categories() -> None:
    assert Lengths.of(range(1, 101)) == Lengths(1, 50, 90, 99, 100)
    assert Lengths.of([]) == Lengths(0, 0, 0, 0, 0)
    assert reason_category("bad JSON: expecting value, column 7") == "bad JSON"
    assert reason_category("message 12 is odd") == "message N is odd"


def test_one_token_is_no_sequence(prepare: Callable[..., PreparedData]) -> None:
    with pytest.raises(UserError, match="^max_seq_length: got 1; use at least 2"):
        prepare(rows(1), max_seq_length=1)


THREAD_VARIABLES = ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM")
THREADS = """
import os, sys
from tokenizers import Tokenizer, models
from component.data.threads import set_tokenizer_threads
notices = set_tokenizer_threads({wanted})
tokenizer = Tokenizer(models.BPE())
tokenizer.encode_batch(["a"] * 1000)
print(len(os.listdir("/proc/self/task")) - 1, notices, set_tokenizer_threads(2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(
    ("wanted", "variable", "expected"),
    [
        (1, None, "1 () ('tokenize_num_workers: 2 has no effect, this process began with threads: 1',)"),
        (2, "5", "2 () ()"),
        (None, "3", "3 () ('tokenize_num_workers: 2 has no effect, this process began with threads: 3',)"),
    ],
)
def test_tokenizer_threads(repository: Path, wanted: int | None, variable: str | None, expected: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    environment |= {"PYTHONPATH": str(repository)} | ({"RAYON_NUM_THREADS": variable} if variable else {})
    command = [sys.executable, "-c", THREADS.format(wanted=wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(("wanted", "switch", "is_told"), [(3, "False", True), (3, "1", False), (1, "0", False)])
def test_tokenizer_threads_that_the_environment_switches_off(
    repository: Path, wanted: int, switch: str, is_told: bool
) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    environment |= {"PYTHONPATH": str(repository), "TOKENIZERS_PARALLELISM": switch}
    code = f"from component.data.threads import set_tokenizer_threads as set; print(*set({wanted}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    told = (
        "tokenize_num_workers: 3 has no effect, TOKENIZERS_PARALLELISM=False in the environment allows one thread; "
        "unset it"
    )
    assert done.stdout.strip() == (told if is_told else "")


REAL = [
    ("alpaca_en_demo.json", "messages", "alpaca", 999, []),
    (
        "glaive_toolcall_en_demo.json",
        "messages",
        "sharegpt",
        300,
        ["7497: no supervised token left: the prompt fills max_seq_length 2048, the row has 11561 tokens"],
    ),
    ("c4_demo.jsonl", "text", "text", 300, []),
    ("wiki_demo.txt", "text", "text", 1, []),
]


@pytest.fixture(scope="module")
def qwen(test_assets: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(test_assets / "tokenizers" / "qwen2.5")


@pytest.mark.parametrize(("name", "row_kind", "data_format", "num_rows", "failures"), REAL)
def test_real_data(
    test_assets: Path,
    qwen: PreTrainedTokenizerFast,
    name: str,
    row_kind: str,
    data_format: str,
    num_rows: int,
    failures: list[str],
) -> None:
    path = str(test_assets / "real_data" / name)
    section = DataSection(train_file=[path], max_seq_length=2048, truncation="keep_start")
    renderer = None if row_kind == "text" else Renderer(qwen, load_chat_template("auto", qwen))
    data = prepare_data(section, build_row_encoder(section, row_kind, qwen, renderer))
    assert [str(failure) for failure in data.report.failures] == [f"{path}:{failure}" for failure in failures]
    assert (data.report.rows_read, data.report.rows_used) == (num_rows, num_rows - len(failures))
    assert data.report.files[0].data_format == data_format
    assert data.report.notices == ()
    check_identity(data)


def test_real_preference_data_is_refused_by_name(test_assets: Path, renderer: Renderer) -> None:
    path = test_assets / "real_data" / "dpo_en_demo.json"
    with pytest.raises(DataError, match="the rows look like preference, which this task cannot use"):
        encode(DataSection(train_file=[str(path)]), renderer)

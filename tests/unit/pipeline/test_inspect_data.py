"""The data of a config as training sees it: on the terminal, and as files that are whole and complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from component.config.errors import DataError, UserError
from component.config.load import load_config
from component.pipeline.describe import describe_run
from component.pipeline.inspect_data import Inspection, inspect_data, row_kind_of
from component.pipeline.prepare import prepare
from component.pipeline.run_data import prepare_run_data
from component.registry import TASK_ROW_KINDS, TASKS

SPECIAL = ["<pad>", "<s>", "</s>", "<user>", "<bot>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ ('<bot>' if message.role == 'assistant' else '<user>') + message.content + '</s>' }}"
    "{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
ROWS = [("ab", "cde"), ("q", "\x1b[2J⟦"), ("a long question", "no"), ("q", " ")]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without a model: one token a byte, so that lengths can be counted by hand."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<user>", "<bot>"],
    )
    tokenizer.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keys of a config with four rows, of which the last has an empty answer."""
    monkeypatch.chdir(tmp_path)
    write_rows("train.jsonl", ROWS)
    return {
        "model_name_or_path": str(tokenizer_folder),
        "train_file": "train.jsonl",
        "output_dir": "run",
        "max_seq_length": 32,
        "max_bad_rows": 0.25,
    }


def write_rows(name: str, rows: list[tuple[str, str]]) -> None:
    records = ({"conversation": [{"human": question, "assistant": answer}]} for question, answer in rows)
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))


def inspect(settings: dict[str, Any], **asked: Any) -> str:
    return "\n".join(inspect_data(load_config(settings), Inspection(**asked)))


def read_json_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_the_report(settings: dict[str, Any]) -> None:
    assert inspect(settings).splitlines() == [
        "samples: ⟦supervised⟧, and \\-escapes stand for what cannot be shown",
        "",
        "train.jsonl:1: 10 tokens, 4 supervised (40.0%)",
        "<s><user>ab</s><bot>⟦cde</s>⟧",
        "",
        "train.jsonl:2: 13 tokens, 8 supervised (61.5%)",
        "<s><user>q</s><bot>⟦\\x1b[2J\\u27e6</s>⟧",
        "",
        "train.jsonl:3: 22 tokens, 3 supervised (13.6%)",
        "<s><user>a long question</s><bot>⟦no</s>⟧",
        "",
        "rendering",
        "template   auto",
        "self-test  token ids equal the chat template's own",
        "           BOS stands where the template writes it",
        "           answers end in a supervised stop token ('</s>')",
        "",
        "train",
        "rows       4 read, 3 used, 1 dropped",
        "samples    3",
        "tokens     45 in all, 15 supervised (33.3%)",
        "truncated  0 tokens of 0 rows, 0 of them without their stop token",
        "length     min 10, p50 13, p90 22, p99 22, max 22",
        "packed     2 rows of 32 tokens, 70.3% full (packing: false)",
        "unpacked   batches of 4 rows grouped by length, 68.2% full",
        "files      train.jsonl: 4 rows, firefly (detected)",
        "",
        "train: tokens in a sample, and how many samples have them",
        *(f"  {length}  " + ("1  " + "#" * 40 if length in (10, 13, 22) else "0") for length in range(10, 23)),
        "",
        "train: longest",
        "  train.jsonl:3: 22 tokens, 3 supervised (13.6%)",
        "  train.jsonl:2: 13 tokens, 8 supervised (61.5%)",
        "  train.jsonl:1: 10 tokens, 4 supervised (40.0%)",
        "",
        "train: least supervised",
        "  train.jsonl:3: 22 tokens, 3 supervised (13.6%)",
        "  train.jsonl:1: 10 tokens, 4 supervised (40.0%)",
        "  train.jsonl:2: 13 tokens, 8 supervised (61.5%)",
        "",
        "train: dropped",
        "  1 empty answer",
        "    train.jsonl:4: empty answer: turn 1",
    ]


def test_json_lines(settings: dict[str, Any]) -> None:
    write_rows("eval.jsonl", [("f", "g")])
    inspect({**settings, "eval_file": "eval.jsonl"}, json=Path("out.jsonl"))
    lines = read_json_lines("out.jsonl")
    assert [(line["source"], line["text"]) for line in lines] == [
        ("train.jsonl:1", "<s><user>ab</s><bot>cde</s>"),
        ("train.jsonl:2", "<s><user>q</s><bot>\x1b[2J⟦</s>"),
        ("train.jsonl:3", "<s><user>a long question</s><bot>no</s>"),
        ("eval.jsonl:1", "<s><user>f</s><bot>g</s>"),
    ]
    assert list(lines[0]) == ["source", "input_ids", "labels", "text"]
    assert list(lines[3]) == ["source", "split", "input_ids", "labels", "text"] and lines[3]["split"] == "evaluation"
    byte = {letter: 5 + sorted(pre_tokenizers.ByteLevel.alphabet()).index(letter) for letter in "abcde"}
    ids = [1, 3, byte["a"], byte["b"], 2, 4, byte["c"], byte["d"], byte["e"], 2]
    assert (lines[0]["input_ids"], lines[0]["labels"]) == (ids, [-100] * 6 + ids[6:])


def test_the_line_in_the_readme_has_these_keys(settings: dict[str, Any], repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```json sample\n(.*)\n```", readme)
    inspect(settings, json=Path("out.jsonl"))
    assert list(json.loads(line.replace("[...]", "[]"))) == list(read_json_lines("out.jsonl")[0])


def test_what_is_written_is_what_training_sees(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("question " * 4, "answer"), ("a", "b"), ("c", "d"), ("e", "f" * 50)])
    settings = {**settings, "truncation": "keep_start", "eval_split": 1, "max_bad_rows": 0.5}
    inspect(settings, json=Path("out.jsonl"))
    data = prepare_run_data(load_config(settings), "messages", needs_model=False).data
    expected = [(str(s.source), list(s.input_ids), s.labels()) for s in (*data.train, *data.evaluation)]
    lines = read_json_lines("out.jsonl")
    assert [(line["source"], line["input_ids"], line["labels"]) for line in lines] == expected
    assert ["split" in line for line in lines] == [False] * len(data.train) + [True]


def test_a_row_that_makes_several_samples_has_a_line_for_each(settings: dict[str, Any]) -> None:
    Path("text.jsonl").write_text(json.dumps({"text": "abcdefgh"}) + "\n" + json.dumps({"text": "xy"}) + "\n")
    inspect(
        {**settings, "task_type": "pretrain", "train_file": "text.jsonl", "max_seq_length": 4}, json=Path("out.jsonl")
    )
    assert [(line["source"], line["text"]) for line in read_json_lines("out.jsonl")] == [
        ("text.jsonl:1", "abcd"),
        ("text.jsonl:1", "defg"),
        ("text.jsonl:1", "gh</s>"),
        ("text.jsonl:2", "xy</s>"),
    ]


def test_preferences(settings: dict[str, Any]) -> None:
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "q", "chosen": "yes", "rejected": "no"}) + "\n")
    text = inspect({**settings, "task_type": "dpo", "train_file": "pairs.jsonl"}, json=Path("out.jsonl"))
    (line,) = read_json_lines("out.jsonl")
    assert list(line) == ["source", "chosen", "rejected"]
    for name, answer in (("chosen", "yes"), ("rejected", "no")):
        part = line[name]
        assert list(part) == ["input_ids", "labels", "text"]
        assert part["text"].endswith(answer + "</s>")
        supervised = [label for label in part["labels"] if label != -100]
        assert supervised == part["input_ids"][-len(answer) - 1 :]
        assert f"{name}:\n" in text and f"⟦{answer}</s>⟧" in text


def test_labels_and_columns(settings: dict[str, Any]) -> None:
    Path("kto.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a", "label": False}) + "\n")
    text = inspect({**settings, "task_type": "kto", "train_file": "kto.jsonl"}, json=Path("out.jsonl"))
    (line,) = read_json_lines("out.jsonl")
    assert list(line) == ["source", "input_ids", "labels", "text", "label"] and line["label"] is False
    assert "\nlabel false:\n" in text
    Path("prompts.jsonl").write_text(
        json.dumps({"prompt": [{"role": "user", "content": "q"}], "solution": "42"}) + "\n"
    )
    grpo = {"task_type": "grpo", "reward_functions": "exact_match", "max_completion_length": 8}
    inspect({**settings, **grpo, "train_file": "prompts.jsonl"}, json=Path("out.jsonl"))
    (line,) = read_json_lines("out.jsonl")
    columns = {"solution": "42", "prompt": [{"role": "user", "content": "q"}]}
    assert (line["text"], line["columns"]) == ("<s><user>q</s><bot>", columns)
    assert set(line["labels"]) == {-100}


def test_a_rare_reason_has_an_example_too(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("q", "")] * 1100 + [("q", "x" * 50), ("q", "a")])
    text = inspect({**settings, "max_bad_rows": 1.0})
    assert text.endswith(
        "\n  1,100 empty answer"
        + "".join(f"\n    train.jsonl:{line}: empty answer: turn 1" for line in (1, 2, 3))
        + "\n    and 1,097 more"
        + "\n  1 over max_seq_length\n    train.jsonl:1101: over max_seq_length: 56 tokens, 32 allowed"
    )


def test_rows_that_were_cut_or_stand_twice(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("q", "x" * 30), ("a", "b"), ("r", "x" * 60), ("a", "b"), ("a", "b")])
    write_rows("eval.jsonl", [("new", "one"), ("a", "b")])
    text = inspect({**settings, "truncation": "keep_start", "eval_file": "eval.jsonl"})
    assert "rows       5 read, 5 used, 0 dropped, 2 equal to an earlier one\n" in text
    assert "truncated  38 tokens of 2 rows, 2 of them without their stop token\n" in text
    assert (
        "train: most truncated\n  train.jsonl:3: 34 tokens cut off\n  train.jsonl:1: 4 tokens cut off\n\n"
        "train: repeated\n  train.jsonl:4: equals train.jsonl:2\n  train.jsonl:5: equals train.jsonl:2\n\n"
    ) in text
    assert text.endswith("evaluation: also in the training data\n  eval.jsonl:2: equals train.jsonl:2")


def test_all_dropped_rows_are_written_and_the_runs_own_error_ends_it(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("q", "")] * 1200 + [("q", "a")] * 300)
    lines = []
    with pytest.raises(DataError) as caught:
        lines += inspect_data(load_config(settings), Inspection(failures=Path("failures.txt")))
    with pytest.raises(DataError) as of_run:
        prepare_run_data(load_config(settings), "messages", needs_model=False)
    assert str(caught.value) == str(of_run.value)
    assert caught.value.messages[0].startswith("train_file: 1,200 of 1,500 rows cannot be used (1,200 empty answer)")
    assert Path("failures.txt").read_text().splitlines() == [
        f"train.jsonl:{number}: empty answer: turn 1" for number in range(1, 1201)
    ]


def test_data_without_a_usable_row_is_reported_too(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("q", ""), ("q", " ")])
    shown = []
    with pytest.raises(DataError, match="no usable row: 2 of 2 rows cannot be used"):
        asked = Inspection(failures=Path("f"), html=Path("h"), png=Path("p"))
        for line in inspect_data(load_config({**settings, "eval_split": 1}), asked):
            shown.append(line)
    assert "rows       2 read, 0 used, 2 dropped" in shown[0]
    assert len(Path("f").read_text().splitlines()) == 2
    assert "2 read, 0 used, 2 dropped" in Path("h").read_text() and Path("p").read_bytes().startswith(b"\x89PNG")


def test_a_split_that_cannot_be_made_comes_after_bad_rows(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("q", ""), ("q", "a")])
    with pytest.raises(DataError, match="max_bad_rows allows 0.25"):
        inspect({**settings, "eval_split": 1})
    with pytest.raises(DataError, match="eval_split: cannot split 1 usable row"):
        inspect({**settings, "eval_split": 1, "max_bad_rows": 1.0})


def test_one_row(settings: dict[str, Any]) -> None:
    long = "x" * 1000
    write_rows("train.jsonl", [("q", "a"), ("q", long), ("q", "")])
    settings = {**settings, "max_seq_length": 2000, "max_bad_rows": 1.0}
    assert inspect(settings, row="train.jsonl:2").splitlines()[2:] == [
        "train.jsonl:2: 1,006 tokens, 1,001 supervised (99.5%)",
        f"<s><user>q</s><bot>⟦{long}</s>⟧",
    ]
    assert inspect(settings, row="train.jsonl:3") == "train.jsonl:3: dropped: empty answer: turn 1"
    with pytest.raises(UserError, match="^--row train.jsonl:4: no sample was made of it and it was not dropped; "):
        inspect(settings, row="train.jsonl:4")
    with pytest.raises(UserError, match="^--row train.jsonl: no file and line"):
        inspect(settings, row="train.jsonl")


def test_page_and_picture(settings: dict[str, Any]) -> None:
    write_rows("train.jsonl", [("<script>alert(1)</script>", "</pre>&")])
    inspect({**settings, "max_seq_length": 64}, html=Path("out.html"), png=Path("out.png"))
    page = Path("out.html").read_text(encoding="utf-8")
    assert "<td>1 read, 1 used, 0 dropped</td>" in page and "<td>37 in all, 8 supervised (21.6%)</td>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<mark>&lt;/pre&gt;&amp;&lt;/s&gt;</mark>" in page
    assert "<script" not in page
    assert Path("out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def link(path: str, target: str) -> str:
    os.symlink(target, path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "train.jsonl", "belongs to train_file"),
        (lambda: link("link.jsonl", "train.jsonl"), "belongs to train_file"),
        (lambda: "eval/new.jsonl", "belongs to eval_file"),
        (lambda: "config.json", "belongs to the config"),
        (lambda: "base.json", "belongs to the config"),
        (lambda: "absent/out.jsonl", "does not exist; make that folder"),
        (lambda: "eval", "a folder; name a file in it"),
    ],
)
def test_outputs_that_would_overwrite_or_cannot_be(
    settings: dict[str, Any], make: Callable[[], str], message: str
) -> None:
    Path("eval").mkdir()
    write_rows("eval/rows.jsonl", ROWS[:1])
    Path("base.json").write_text(json.dumps({"lora_rank": 4}))
    Path("config.json").write_text(json.dumps({**settings, "base": "base.json", "eval_file": "eval/*.jsonl"}))
    before = {path: path.read_bytes() for path in Path().rglob("*.json*")}
    out = make()
    with pytest.raises(UserError) as caught:
        list(inspect_data(load_config("config.json"), Inspection(json=Path(out))))
    assert str(caught.value).startswith(f"--json {out}: ") and message in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_an_output_replaces_a_regular_file_alone(settings: dict[str, Any]) -> None:
    Path("old.txt").write_text("old")
    os.symlink("old.txt", "link.txt")
    inspect(settings, failures=Path("link.txt"))
    assert Path("link.txt").is_symlink()
    assert Path("old.txt").read_text() == "train.jsonl:4: empty answer: turn 1\n"
    with pytest.raises(UserError, match="--json same: --failures names it too|--failures same: --json names it too"):
        inspect(settings, json=Path("same"), failures=Path("same"))
    assert not [path for path in Path().iterdir() if path.name.endswith(".tmp") or path.name == "same"]


def test_what_was_there_stays_when_the_data_cannot_be_used(settings: dict[str, Any]) -> None:
    Path("out.jsonl").write_text("old")
    with pytest.raises(UserError, match="over max_seq_length 12"):
        inspect({**settings, "truncation": "error", "max_seq_length": 12}, json=Path("out.jsonl"))
    assert Path("out.jsonl").read_text() == "old"


def test_a_dry_run_shows_the_same(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    config = load_config({**tiny_settings, "eval_split": 6, "output_dir": str(tmp_path / "run")})
    dry_run, inspected = list(describe_run(prepare(config))), list(inspect_data(config, Inspection()))
    assert dry_run[0] == inspected[0]
    assert "rows       22 read, 22 used, 0 dropped, 6 held out for evaluation" in dry_run[0]
    assert "\nevaluation\nrows       6 read, 6 used, 0 dropped\n" in dry_run[0]


@pytest.mark.parametrize(
    ("file", "data_format"), [("samples/sharegpt.jsonl", "sharegpt"), ("dummy_data.jsonl", "firefly")]
)
def test_sharegpt_mapping_reads_what_the_file_holds(
    tiny_settings: dict[str, Any], repository: Path, tmp_path: Path, file: str, data_format: str
) -> None:
    settings = {
        **tiny_settings,
        "train_file": str(repository / "data" / file),
        "max_seq_length": 512,
        "max_bad_rows": 1,
    }
    config = load_config({**settings, "use_sharegpt_mapping": True, "output_dir": str(tmp_path / "run")})
    report = prepare(config).data.report
    assert [item.data_format for item in report.files] == [data_format]
    assert report.rows_used > 0


def test_a_warm_up_longer_than_the_run_is_a_hint(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**tiny_settings, "output_dir": str(tmp_path / "run")}
    hint = (
        "hint: config: warmup_steps: the run of 3 steps ends within its warm-up of 100, below its learning rate; "
        "use a share such as 0.03"
    )
    for changes, is_hinted in (
        ({"warmup_steps": 100}, True),
        ({"warmup_steps": 100, "lr_scheduler_type": "constant"}, False),
        ({"warmup_steps": 2}, False),
        ({"warmup_steps": 0.5}, False),
    ):
        assert (hint in describe_run(prepare(load_config({**settings, **changes})))) == is_hinted, changes


def test_row_kinds_are_those_of_the_tasks() -> None:
    assert {name: TASKS.get(name).row_kind for name in TASKS.names()} == TASK_ROW_KINDS
    assert row_kind_of("sft") == "messages"


@pytest.fixture
def run_script(
    settings: dict[str, Any], repository: Path, run_python: Callable[..., Any]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        Path("config.json").write_text(json.dumps(settings))
        script = repository / "script/inspect_data.py"
        command = [sys.executable, str(script), "--train_args_file", "config.json", *arguments]
        # An interpreter reads its own variables when it starts.
        start = partial(subprocess.run, capture_output=True, text=True) if environment else run_python
        return start(command, env={**os.environ, "HF_HUB_OFFLINE": "1", **environment}, timeout=120)

    return run


def test_the_script(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = run_script("--samples", "1", "--json", "out.jsonl", PYTHONIOENCODING="ascii")
    assert finished.returncode == 0, finished.stderr
    assert "<bot>\\u27e6cde</s>\\u27e7\n" in finished.stdout and "train.jsonl:2: 13 tokens, 8 " in finished.stdout
    assert finished.stdout.count("<user>") == 1 and "\x1b" not in finished.stdout
    assert len(read_json_lines("out.jsonl")) == 3
    assert not Path("run").exists()


def test_the_script_ends_like_the_run_would(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = run_script("max_bad_rows=0.1", "--failures", "failures.txt")
    assert finished.returncode == 2
    assert "rows       4 read, 3 used, 1 dropped" in finished.stdout
    assert finished.stderr.splitlines()[-2:] == [
        "train_file: 1 of 4 rows cannot be used (1 empty answer), a share of 0.2500; max_bad_rows allows 0.1: "
        "correct the data, or raise max_bad_rows",
        "train.jsonl:4: empty answer: turn 1",
    ]
    assert Path("failures.txt").read_text() == "train.jsonl:4: empty answer: turn 1\n"


def test_a_wrong_key_ends_the_script_at_once(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = run_script("lora_rnk=8", "--json", "out.jsonl")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "command line: lora_rnk: unknown key; did you mean lora_rank?\n"
    assert not Path("out.jsonl").exists()

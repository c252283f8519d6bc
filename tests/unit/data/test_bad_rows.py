"""The table of bad rows: each in a file between good ones, over every format and kind of rows, from file to samples.

A kind of rows is what a task reads, `TASK_ROW_KINDS`: dpo, orpo, cpo and reward read the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from component.config.errors import DataError, UserError
from component.config.schema import DataSection
from component.data.content_controls import CONTROL_TOKENS_IN_PLAIN_TEXT
from component.data.encoders.build import build_row_encoder
from component.data.encoders.interface import RowEncoder
from component.data.formats.interface import load_format
from component.data.prepare import PreparedData, prepare_data
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import EncodedRow, Row, RowError
from component.data.templates import load_chat_template
from component.registry import FORMATS, TASK_ROW_KINDS

Record = dict[str, Any]
Prepare = Callable[..., PreparedData]


def turn(role: str, content: Any) -> Record:
    return {"role": role, "content": content}


def said(speaker: str, value: Any) -> Record:
    return {"from": speaker, "value": value}


ASK, REPLY, OTHER = turn("user", "a"), turn("assistant", "b"), turn("assistant", "c")
SYSTEM = turn("system", "s")

GOOD: dict[str, Record] = {
    "firefly": {"conversation": [{"human": "a", "assistant": "b"}]},
    "alpaca": {"instruction": "a", "input": "", "output": "b"},
    "sharegpt": {"conversations": [said("human", "a"), said("gpt", "b")]},
    "openai": {"messages": [ASK, REPLY]},
    "qa": {"question": "a", "answer": "b"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "segments": {"segments": [{"text": "a", "supervised": False}, {"text": "b</s>", "supervised": True}]},
    "text": {"text": "a b"},
    "preference": {"prompt": [ASK], "chosen": [REPLY], "rejected": [OTHER]},
    "kto": {"prompt": [ASK], "completion": [REPLY], "label": True},
    "prompt_only": {"prompt": "a", "solution": "b"},
}

#: Kind of rows -> a format of it.
ONE_OF_A_KIND = {
    "messages": "firefly", "text": "text", "preference": "preference", "labelled": "kto", "prompt": "prompt_only",
}  # fmt: skip

DEEP = '{"x": ' + "[" * 10**5 + "]" * 10**5 + "}"

#: A line that is spoilt as a line, whatever its format; None where the line is no bad row.
LINES: dict[str, tuple[Any, str | None]] = {
    "blank line": (lambda line: "  \t ", None),
    "byte-order mark": (lambda line: line, None),
    "truncated JSON": (lambda line: line[:-1], "bad JSON: expecting ',' delimiter, column {column}"),
    "invalid UTF-8": (lambda line: b'{"x": "\xff", ' + line[1:].encode(), "invalid UTF-8: byte 8 of the line"),
    "lone surrogate": (lambda line: '{"x": "\\ud800", ' + line[1:], "lone surrogate: half of a \\u pair stands alone"),
    "list": (lambda line: f"[{line}]", "not an object: a list"),
    "string": (lambda line: '"a"', "not an object: a string"),
    "duplicate key": (lambda line: '{"x": 1, "x": 2, ' + line[1:], "duplicate key: 'x'"),
    "over-deep nesting": (lambda line: DEEP, "bad JSON: nested too deeply, column 1"),
    "number": (lambda line: "1", "not an object: a number"),
    "null": (lambda line: "null", "not an object: null"),
    "two objects": (lambda line: line + line, "bad JSON: more text after the object, column {half}"),
}

#: Case -> format -> a record and the reason; None where the record is used.
RECORDS: dict[str, dict[str, tuple[Record, str | None]]] = {
    "missing": {
        **{name: ({"x": 1}, f"missing {key}: the row has x") for name, key in {
            "firefly": "conversation", "alpaca": "instruction", "sharegpt": "conversations", "openai": "messages",
            "qa": "question", "prompt_completion": "prompt", "segments": "segments", "text": "text",
            "preference": "chosen", "kto": "prompt", "prompt_only": "prompt",
        }.items()},
    },
    "null": {
        "firefly": ({"conversation": None}, "null conversation"),
        "alpaca": ({"instruction": "a", "output": None}, "null content: output"),
        "sharegpt": ({"conversations": None}, "null conversations"),
        "openai": ({"messages": None}, "null messages"),
        "qa": ({"question": None, "answer": "b"}, "null content: question"),
        "prompt_completion": ({"prompt": "a", "completion": None}, "null completion"),
        "segments": ({"segments": None}, "null segments"),
        "text": ({"text": None}, "null text"),
        "preference": ({"prompt": "a", "chosen": None, "rejected": "b"}, "null chosen"),
        "kto": ({"messages": None, "label": True}, "null messages"),
        "prompt_only": ({"prompt": None}, "null prompt"),
    },
    "empty": {
        "firefly": ({"conversation": []}, "empty conversation"),
        "sharegpt": ({"conversations": []}, "empty conversations"),
        "openai": ({"messages": []}, "empty messages"),
        "prompt_completion": ({"prompt": [], "completion": "b"}, "empty prompt"),
        "segments": ({"segments": []}, "empty segments"),
        "text": ({"text": ""}, "empty text"),
        "preference": ({"prompt": [ASK], "chosen": [], "rejected": [OTHER]}, "empty chosen"),
        "kto": ({"messages": [], "label": True}, "empty messages"),
        "prompt_only": ({"prompt": ""}, "empty prompt"),
    },
    "another format's name": {
        "firefly": (GOOD["openai"], "missing conversation: this looks like openai; set data_format: openai"),
        "alpaca": (GOOD["sharegpt"], "missing instruction: this looks like sharegpt; set data_format: sharegpt"),
        "sharegpt": (
            {"conversations": [ASK, REPLY]},
            "missing turn key: from in turn 1, which has role and content; "
            "this looks like openai; rename conversations to messages and set data_format: openai",
        ),
        "openai": (GOOD["firefly"], "missing messages: this looks like firefly; set data_format: firefly"),
        "qa": (GOOD["alpaca"], "missing question: this looks like alpaca; set data_format: alpaca"),
        "prompt_completion": (GOOD["qa"], "missing prompt: this looks like qa; set data_format: qa"),
        "segments": (GOOD["text"], "missing segments: this looks like text; set task_type: pretrain"),
        "text": (GOOD["segments"], "missing text: this looks like segments; set task_type: sft"),
        "preference": (GOOD["kto"], "missing chosen: this looks like kto; set task_type: kto"),
        "kto": (
            GOOD["preference"],
            "missing completion: this looks like preference; set task_type: dpo, orpo, cpo or reward",
        ),
        "prompt_only": (GOOD["qa"], "missing prompt: this looks like qa; set task_type: sft"),
    },
    "content that is no text": {
        "firefly": (
            {"conversation": [{"human": 1, "assistant": "b"}]}, "content is not text: human in turn 1 is a number"
        ),
        "alpaca": ({"instruction": {}, "output": "b"}, "content is not text: instruction is an object"),
        "sharegpt": (
            {"conversations": [said("human", True), said("gpt", "b")]},
            "content is not text: value in turn 1 is a boolean",
        ),
        "openai": (
            {"messages": [turn("user", [{"type": "image"}]), REPLY]},
            "content is not text: message 1 has a part of type 'image'",
        ),
        "qa": ({"question": "a", "answer": 1.5}, "content is not text: answer is a number"),
        "prompt_completion": (
            {"prompt": "a", "completion": 1}, "completion is not text or a list of messages: a number"
        ),
        "segments": (
            {"segments": [{"text": 1, "supervised": True}]}, "content is not text: text in segment 1 is a number"
        ),
        "text": ({"text": ["a"]}, "text is not a string: a list"),
        "preference": (
            {"prompt": "a", "chosen": {}, "rejected": "c"}, "chosen is not text or a list of messages: an object"
        ),
        "kto": (
            {"messages": [turn("user", 1), REPLY], "label": True}, "content is not text: message 1 is a number"
        ),
        "prompt_only": ({"prompt": 1}, "prompt is not text or a list of messages: a number"),
    },
    "a list of text parts": {
        "firefly": ({"conversation": [{"human": ["a"], "assistant": [{"type": "text", "text": "b"}]}]}, None),
        "alpaca": ({"instruction": ["a"], "output": ["b"]}, None),
        "sharegpt": ({"conversations": [said("human", ["a"]), said("gpt", ["b"])]}, None),
        "openai": ({"messages": [turn("user", [{"type": "text", "text": "a"}]), REPLY]}, None),
        "qa": ({"question": ["a"], "answer": ["b"]}, None),
        "kto": ({"messages": [turn("user", ["a"]), REPLY], "label": True}, None),
    },
    "null system": {
        **{name: ({**GOOD[name], "system": None}, None) for name in (
            "firefly", "alpaca", "sharegpt", "qa", "preference",
        )},
        "openai": ({"messages": [turn("system", None), ASK, REPLY]}, None),
        "kto": ({"messages": [turn("system", None), ASK, REPLY], "label": True}, None),
        "prompt_only": ({"prompt": [turn("system", None), ASK]}, None),
    },
    "empty answer": {
        "firefly": ({"conversation": [{"human": "a", "assistant": ""}]}, "empty answer: turn 1"),
        "alpaca": ({"instruction": "a", "output": ""}, "empty answer: output"),
        "sharegpt": ({"conversations": [said("human", "a"), said("gpt", "")]}, "empty answer: turn 2"),
        "openai": ({"messages": [ASK, turn("assistant", "")]}, "empty answer: message 2"),
        "qa": ({"question": "a", "answer": ""}, "empty answer: answer"),
        "prompt_completion": ({"prompt": "a", "completion": ""}, "empty answer: completion"),
        "segments": (
            {"segments": [{"text": "", "supervised": True}]}, "empty answer: the supervised segments hold no text"
        ),
        "preference": ({"prompt": "a", "chosen": "", "rejected": "c"}, "empty answer: chosen"),
        "kto": ({"prompt": "a", "completion": "", "label": True}, "empty answer: completion"),
    },
    "whitespace answer": {
        "firefly": ({"conversation": [{"human": "a", "assistant": " \n"}]}, "empty answer: turn 1"),
        "alpaca": ({"instruction": "a", "output": "\t"}, "empty answer: output"),
        "sharegpt": ({"conversations": [said("human", "a"), said("gpt", " ")]}, "empty answer: turn 2"),
        "openai": ({"messages": [ASK, turn("assistant", "\n\n")]}, "empty answer: message 2"),
        "qa": ({"question": "a", "answer": "\u3000"}, "empty answer: answer"),
        "prompt_completion": ({"prompt": "a", "completion": " "}, "empty answer: completion"),
        "segments": (
            {"segments": [{"text": " ", "supervised": True}]}, "empty answer: the supervised segments hold no text"
        ),
        "text": ({"text": " \n"}, "empty text"),
        "preference": (
            {"prompt": [ASK], "chosen": [REPLY], "rejected": [turn("assistant", " ")]},
            "empty answer: rejected message 1",
        ),
        "kto": (
            {"messages": [ASK, turn("assistant", " ")], "label": False}, "empty answer: message 2"
        ),
        "prompt_only": ({"prompt": [turn("user", " ")]}, "empty prompt"),
    },
    "no answer at all": {
        "firefly": (
            {"conversation": [{"human": "a"}]}, "missing turn key: assistant in turn 1, which has human"
        ),
        "alpaca": ({"instruction": "a"}, "missing output: the row has instruction"),
        "sharegpt": ({"conversations": [said("human", "a")]}, "no answer at all"),
        "openai": ({"messages": [ASK]}, "no answer at all"),
        "qa": ({"question": "a"}, "missing answer: the row has question"),
        "prompt_completion": ({"prompt": "a"}, "missing completion: the row has prompt"),
        "segments": (
            {"segments": [{"text": "a", "supervised": False}]}, "no answer at all: no segment is supervised"
        ),
        "preference": ({"prompt": "a", "chosen": "b"}, "missing rejected: the row has prompt, chosen"),
        "kto": ({"messages": [ASK], "label": True}, "no answer at all: the last message is the user's"),
    },
    "misspelt key": {
        "firefly": ({"conversaton": []}, "missing conversation: the row has 'conversaton'; did you mean conversation?"),
        "alpaca": ({"instruction": "a", "outptu": "b"}, "missing output: the row has 'outptu'; did you mean output?"),
        "sharegpt": (
            {"conversations": [{"from": "human", "vlaue": "a"}]},
            "unknown turn key: 'vlaue' in turn 1; did you mean value?",
        ),
        "openai": (
            {"messages": [{"rol": "user", "content": "a"}]}, "unknown turn key: 'rol' in message 1; did you mean role?"
        ),
        "qa": ({"questoin": "a", "answer": "b"}, "missing question: the row has 'questoin'; did you mean question?"),
        "prompt_completion": (
            {"prompt": "a", "compeltion": "b"}, "missing completion: the row has 'compeltion'; did you mean completion?"
        ),
        "segments": (
            {"segments": [{"text": "a", "supervized": True}]},
            "unknown turn key: 'supervized' in segment 1; did you mean supervised?",
        ),
        "text": ({"txt": "a"}, "missing text: the row has 'txt'; did you mean text?"),
        "preference": (
            {"prompt": "a", "choosen": "b", "rejected": "c"},
            "missing chosen: the row has 'choosen'; did you mean chosen?",
        ),
        "kto": (
            {"prompt": "a", "completion": "b", "lable": True},
            "missing label: the row has 'lable'; did you mean label?",
        ),
        "prompt_only": ({"promtp": "a"}, "missing prompt: the row has 'promtp'; did you mean prompt?"),
    },
    "wrong order": {
        "sharegpt": (
            {"conversations": [said("gpt", "b"), said("human", "a")]},
            "wrong role order: the conversation begins with assistant in turn 1",
        ),
        "openai": ({"messages": [ASK, ASK, REPLY]}, "wrong role order: user after user in message 2"),
        "prompt_completion": (
            {"prompt": [ASK, REPLY], "completion": [REPLY]},
            "wrong role order: the prompt ends with assistant in prompt message 2",
        ),
        "preference": (
            {"prompt": [ASK], "chosen": [REPLY, OTHER], "rejected": [OTHER]},
            "wrong role order: assistant after assistant in chosen message 2",
        ),
        "kto": (
            {"messages": [REPLY, ASK, REPLY], "label": True},
            "wrong role order: the conversation begins with assistant in message 1",
        ),
        "prompt_only": (
            {"prompt": [ASK, REPLY]}, "wrong role order: the prompt ends with assistant in prompt message 2"
        ),
    },
    "unknown role": {
        "sharegpt": (
            {"conversations": [said("humman", "a"), said("gpt", "b")]},
            "unknown role: 'humman' in turn 1; did you mean human?",
        ),
        "openai": (
            {"messages": [turn("asistant", "a")]}, "unknown role: 'asistant' in message 1; did you mean assistant?"
        ),
        "prompt_completion": (
            {"prompt": [turn("usr", "a")], "completion": "b"},
            "unknown role: 'usr' in prompt message 1; did you mean user?",
        ),
        "preference": (
            {"prompt": [ASK], "chosen": [turn("asistant", "b")], "rejected": [OTHER]},
            "unknown role: 'asistant' in chosen message 1; did you mean assistant?",
        ),
        "kto": (
            {"messages": [turn("usr", "a"), REPLY], "label": True},
            "unknown role: 'usr' in message 1; did you mean user?",
        ),
        "prompt_only": ({"prompt": [turn("usr", "a")]}, "unknown role: 'usr' in prompt message 1; did you mean user?"),
    },
    "two systems": {
        "sharegpt": (
            {"system": "s", "conversations": [said("system", "t"), said("human", "a"), said("gpt", "b")]},
            "two system messages",
        ),
        "openai": ({"messages": [SYSTEM, SYSTEM, ASK, REPLY]}, "two system messages"),
        "prompt_completion": ({"prompt": [SYSTEM, SYSTEM, ASK], "completion": "b"}, "two system messages"),
        "preference": (
            {"system": "s", "prompt": [SYSTEM, ASK], "chosen": [REPLY], "rejected": [OTHER]}, "two system messages"
        ),
        "kto": ({"messages": [SYSTEM, SYSTEM, ASK, REPLY], "label": True}, "two system messages"),
        "prompt_only": ({"prompt": [SYSTEM, SYSTEM, ASK]}, "two system messages"),
    },
    "chosen = rejected": {
        "preference": ({"prompt": [ASK], "chosen": [REPLY], "rejected": [REPLY]}, "chosen equals rejected"),
    },
    "different prompts": {
        "preference": (
            {"chosen": [ASK, REPLY], "rejected": [turn("user", "x"), OTHER]},
            "different prompts: chosen and rejected begin with different messages",
        ),
    },
    "no verdict": {"kto": ({**GOOD["kto"], "label": "good"}, "label is not true or false: 'good'")},
}  # fmt: skip


def spoilt(line: Any) -> bytes:
    return line if isinstance(line, bytes) else line.encode()


@pytest.fixture()
def prepare(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Prepares train.jsonl as the task does that reads a format."""
    monkeypatch.chdir(tmp_path)
    template = load_chat_template("auto", byte_tokenizer)

    def prepare(name: str, file: str = "train.jsonl", **options: Any) -> PreparedData:
        options = {"data_format": name, "max_bad_rows": 1.0, **options}
        section = DataSection(train_file=[file], **options)
        renderer = Renderer(byte_tokenizer, template, options=RenderOptions(train_on=section.train_on))
        encoder = build_row_encoder(section, load_format(name).row_kind, byte_tokenizer, renderer)
        return prepare_data(section, encoder)

    return prepare


def check(data: PreparedData, failures: list[str], lines: list[int]) -> None:
    """These rows are dropped and those used; none is lost."""
    report = data.report
    assert [str(failure) for failure in report.failures] == failures == [str(item) for item in data.failures()]
    assert [sample.source.line for sample in data.train] == lines
    assert (report.rows_used, report.rows_dropped) == (len(lines), len(failures))
    assert report.rows_read == report.rows_used + report.rows_dropped


def check_second_line(prepare: Prepare, name: str, line: str | bytes, reason: str | None, start: bytes = b"") -> None:
    """The line between two good ones is dropped for its reason, or used where there is none."""
    good = json.dumps(GOOD[name]).encode()
    Path("train.jsonl").write_bytes(start + good + b"\n" + spoilt(line) + b"\n" + good + b"\n")
    is_used = reason is None and bool(spoilt(line).strip())
    failures = [] if reason is None else [f"train.jsonl:2: {reason}"]
    check(prepare(name), failures, [1, 2, 3] if is_used else [1, 3])


def test_every_format_and_kind_of_rows_is_in_the_table() -> None:
    assert set(GOOD) == set(FORMATS.names())
    assert {load_format(name).row_kind for name in GOOD} == set(TASK_ROW_KINDS.values())
    assert set(ONE_OF_A_KIND) == set(TASK_ROW_KINDS.values())


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("case", LINES)
def test_a_line_that_is_spoilt(prepare: Prepare, case: str, name: str) -> None:
    spoil, reason = LINES[case]
    line = spoil(json.dumps(GOOD[name]))
    reason = reason.format(column=len(line) + 1, half=len(line) // 2 + 1) if reason else None
    start = b"\xef\xbb\xbf" if case == "byte-order mark" else b""
    check_second_line(prepare, name, line, reason, start)


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_a_line_of_100_mb(prepare: Prepare, name: str) -> None:
    reason = "over-long record: 104,857,601 bytes, at most 16,777,216 are read"
    check_second_line(prepare, name, b"x" * 100 * 2**20, reason)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, formats in RECORDS.items() for name in formats])
def test_a_record_that_is_bad(prepare: Prepare, case: str, name: str) -> None:
    record, reason = RECORDS[case][name]
    check_second_line(prepare, name, json.dumps(record), reason)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, formats in RECORDS.items() for name in formats])
def test_a_bad_record_of_an_array_is_named_by_its_first_line(prepare: Prepare, case: str, name: str) -> None:
    record, reason = RECORDS[case][name]
    text = json.dumps([GOOD[name], record, GOOD[name]], indent=1)
    Path("train.json").write_text(text)
    second = 2 + len(json.dumps(GOOD[name], indent=1).splitlines())
    third = second + len(json.dumps(record, indent=1).splitlines())
    failures = [] if reason is None else [f"train.json:{second}: {reason}"]
    check(prepare(name, "train.json"), failures, [2, third] if reason else [2, second, third])


MISSPELT = {
    **dict.fromkeys(("sharegpt", "preference"), {"systm": "system", "toolss": "tools"}),
    **dict.fromkeys(("firefly", "alpaca", "qa"), {"systm": "system"}),
    **dict.fromkeys(("openai", "kto"), {"toolss": "tools"}),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_misspelt_optional_key_is_one_notice(prepare: Prepare, name: str) -> None:
    Path("train.jsonl").write_text((json.dumps({**GOOD[name], "systm": "s", "toolss": []}) + "\n") * 3)
    data = prepare(name)
    check(data, [], [1, 2, 3])
    misspelt = MISSPELT.get(name, {})
    expected = {f"key '{key}' is not read; did you mean {meant}? (3 rows)" for key, meant in misspelt.items()}
    if "</s>" in json.dumps(GOOD[name]):
        expected.add(f"{CONTROL_TOKENS_IN_PLAIN_TEXT} (3 rows)")
    assert set(data.report.notices) == expected and len(data.report.notices) == len(expected)


@pytest.mark.parametrize("name", GOOD)
def test_detection_finds_the_format_between_bad_rows(prepare: Prepare, name: str) -> None:
    Path("train.jsonl").write_text("{\n[]\n" + json.dumps(GOOD[name]) + "\n")
    data = prepare(name, data_format="auto")
    assert data.report.files[0].data_format == name
    failures = [
        "train.jsonl:1: bad JSON: expecting property name enclosed in double quotes, column 2",
        "train.jsonl:2: not an object: a list",
    ]
    check(data, failures, [3])


def test_columns_with_other_names(prepare: Prepare) -> None:
    rows = [{"query": "a", "reply": "b"}, {"query": "a", "reply": " "}, {"query": "a", "question": "c"}]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    failures = [
        "train.jsonl:2: empty answer: answer",
        "train.jsonl:3: two columns are question: columns maps another one to it",
    ]
    for data_format in ("auto", "qa"):
        data = prepare("qa", data_format=data_format, columns={"query": "question", "reply": "answer"})
        check(data, failures, [1])
    cases = {
        ("querry", "question"): "train.jsonl: columns: there is no column 'querry' in the first rows; "
        "did you mean query?",
        ("zzz", "question"): "train.jsonl: columns: there is no column 'zzz' in the first rows; "
        "the rows have query, reply, question",
        ("query", "qestion"): "columns: 'query' is mapped to 'qestion', which qa does not read; did you mean question?",
    }
    for (written, key), message in cases.items():
        with pytest.raises(DataError) as caught:
            prepare("qa", columns={written: key})
        assert str(caught.value) == message


#: Format -> a record of a prompt and an answer (of a preference the better one), and how many tokens it becomes beside
#: those of prompt and answer: <s> <user> prompt </s> <bot> answer </s>, or of plain texts the EOS token alone.
MAKE: dict[str, tuple[Callable[[str, str], Record], int]] = {
    "firefly": (lambda prompt, answer: {"conversation": [{"human": prompt, "assistant": answer}]}, 5),
    "alpaca": (lambda prompt, answer: {"instruction": prompt, "output": answer}, 5),
    "sharegpt": (lambda prompt, answer: {"conversations": [said("human", prompt), said("gpt", answer)]}, 5),
    "openai": (lambda prompt, answer: {"messages": [turn("user", prompt), turn("assistant", answer)]}, 5),
    "qa": (lambda prompt, answer: {"question": prompt, "answer": answer}, 5),
    "prompt_completion": (lambda prompt, answer: {"prompt": prompt, "completion": answer}, 1),
    "segments": (
        lambda prompt, answer: {
            "segments": [{"text": prompt, "supervised": False}, {"text": answer + "</s>", "supervised": True}]
        },
        1,
    ),
    "kto": (
        lambda prompt, answer: {"messages": [turn("user", prompt), turn("assistant", answer)], "label": False},
        5,
    ),
    "preference": (
        lambda prompt, answer: {
            "prompt": [turn("user", prompt)],
            "chosen": [turn("assistant", answer)],
            "rejected": [OTHER],
        },
        5,
    ),
    "prompt_only": (lambda prompt, answer: {"messages": [turn("user", prompt)], "solution": answer}, 4),
}
ANSWERING = [name for name in MAKE if name != "prompt_only"]


def write_between(name: str, record: Record) -> None:
    good = GOOD[name]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (good, record, good)))


@pytest.mark.parametrize("name", MAKE)
def test_rows_that_are_too_long(prepare: Prepare, name: str) -> None:
    make, added = MAKE[name]
    record = make("q" * 8, "a" * 12)
    write_between(name, record)
    num_tokens = f"{(8 if name == 'prompt_only' else 20) + added} tokens"
    if name == "preference":
        num_tokens = f"chosen has {num_tokens}, rejected {8 + 1 + added}"
    limits, whole, beside = {"max_seq_length": 11}, 11, ""
    if name == "prompt_only":
        whole, beside = 18, " beside max_completion_length 7"
        limits = {"max_seq_length": whole, "max_completion_length": 7}
    why = f"over max_seq_length: {num_tokens}, 11 allowed{beside}"
    check(prepare(name, **limits), [f"train.jsonl:2: {why}"], [1, 3])
    with pytest.raises(DataError) as caught:
        prepare(name, **limits, truncation="error")
    start = f"train.jsonl:2: {num_tokens}, over max_seq_length {whole}{beside}; raise max_seq_length, "
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("name", MAKE)
def test_a_prompt_that_fills_the_length(prepare: Prepare, name: str) -> None:
    make, added = MAKE[name]
    write_between(name, make("q" * 20, "a"))
    reasons = {
        "preference": "preference truncated to nothing: the prompt has 24 tokens and fills max_seq_length 16",
        "prompt_only": None,
    }
    filled = f"no supervised token left: the prompt fills max_seq_length 16, the row has {21 + added} tokens"
    reason = reasons.get(name, filled)
    data = prepare(name, max_seq_length=16, truncation="keep_start" if reason else "keep_end")
    check(data, [f"train.jsonl:2: {reason}"] if reason else [], [1, 3] if reason else [1, 2, 3])


@pytest.mark.parametrize("name", ["sharegpt", "openai"])
def test_a_last_question_that_fills_the_length(prepare: Prepare, name: str) -> None:
    question = "q" * 20
    write_between(
        name,
        {
            "sharegpt": {"conversations": [said("human", "a"), said("gpt", "b"), said("human", question)]},
            "openai": {"messages": [ASK, REPLY, turn("user", question)]},
        }[name],
    )
    reason = "no supervised token left: the last question fills max_seq_length 16, the row has 29 tokens"
    check(prepare(name, max_seq_length=16, truncation="keep_end"), [f"train.jsonl:2: {reason}"], [1, 3])


@pytest.mark.parametrize("name", ANSWERING)
def test_an_answer_that_is_cut(prepare: Prepare, name: str) -> None:
    """It is used, as `keep_start` wants it, and the report says where it is."""
    write_between(name, MAKE[name][0]("q", "a" * 20))
    data = prepare(name, max_seq_length=16, truncation="keep_start")
    check(data, [], [1, 2, 3])
    assert (data.report.rows_truncated, data.report.rows_without_stop) == (1, 1)
    assert "train: 1 row cut before the stop token of an answer: train.jsonl:2" in data.report.lines()
    sample = getattr(data.train[1], "chosen", data.train[1])
    assert sample.length == 16 and sample.input_ids[-1] == sample.labels()[-1] == sample.input_ids[-2]


@pytest.mark.parametrize("name", [name for name in ANSWERING if name not in ("kto", "preference")])
def test_turns_that_are_too_long_to_split(prepare: Prepare, name: str) -> None:
    make, added = MAKE[name]
    write_between(name, make("q", "a" * 20))
    has_turns = name not in ("prompt_completion", "segments")
    why = "and no single turn fits" if has_turns else "and no turns to split"
    reason = f"over max_seq_length: {21 + added} tokens, 16 allowed, {why}"
    check(prepare(name, max_seq_length=16, truncation="split_turns"), [f"train.jsonl:2: {reason}"], [1, 3])


UNLEARNED = {**REPLY, "weight": 0}
#: Format -> a record of which nothing is learned, options, and the reason.
MASKED: list[tuple[str, Record, dict[str, Any], str]] = [
    ("openai", {"messages": [ASK, UNLEARNED]}, {}, "no answer to learn from: all have weight 0"),
    (
        "openai",
        {"messages": [ASK, REPLY, ASK, UNLEARNED]},
        {"train_on": "last"},
        "no supervised token: the last answer has weight 0",
    ),
    (
        "sharegpt",
        {"conversations": [said("human", "a"), {**said("gpt", "b"), "weight": 0}]},
        {},
        "no answer to learn from: all have weight 0",
    ),
    ("kto", {"messages": [ASK, UNLEARNED], "label": True}, {}, "no supervised token: every answer has weight 0"),
    (
        "preference",
        {"prompt": [ASK], "chosen": [UNLEARNED], "rejected": [OTHER]},
        {},
        "no supervised token: every answer has weight 0 (in chosen)",
    ),
    (
        "segments",
        {"segments": [{"text": "</s>", "supervised": True}]},
        {},
        "no supervised token: a single token has nothing to predict",
    ),
]


@pytest.mark.parametrize(("name", "record", "options", "reason"), MASKED)
def test_rows_without_a_token_to_learn(
    prepare: Prepare, name: str, record: Record, options: dict[str, Any], reason: str
) -> None:
    write_between(name, record)
    check(prepare(name, **options), [f"train.jsonl:2: {reason}"], [1, 3])


#: A preference that cannot be compared, options, and the reason.
NOT_COMPARABLE: list[tuple[Record, dict[str, Any], str]] = [
    ({"prompt": "a", "chosen": " b", "rejected": " b"}, {}, "chosen equals rejected"),
    ({"chosen": [ASK, REPLY], "rejected": [ASK, REPLY]}, {}, "chosen equals rejected"),
    (
        {"conversations": [said("human", "a")], "chosen": said("gpt", "b"), "rejected": said("gpt", "b")},
        {},
        "chosen equals rejected",
    ),
    (
        {"prompt": "a", "chosen": "b</s>", "rejected": "b"},
        {},
        "chosen equals rejected: both become the same tokens",
    ),
    (
        {"chosen": [ASK, REPLY], "rejected": [turn("user", "x"), OTHER]},
        {},
        "different prompts: chosen and rejected begin with different messages",
    ),
    (
        {"chosen": [ASK, REPLY], "rejected": [ASK, turn("user", "x"), OTHER]},
        {},
        "different prompts: rejected message 2 is user's, not an answer",
    ),
    (
        {"prompt": "a" * 16, "chosen": "b", "rejected": "c"},
        {"max_seq_length": 16, "truncation": "keep_start"},
        "preference truncated to nothing: the prompt has 16 tokens and fills max_seq_length 16",
    ),
    (
        {"prompt": "a", "chosen": "b" * 16 + "c", "rejected": "b" * 16 + "d"},
        {"max_seq_length": 16, "truncation": "keep_start"},
        "preference truncated to nothing: chosen equals rejected up to max_seq_length 16",
    ),
    (
        {"prompt": "a", "chosen": "b" * 16, "rejected": "d"},
        {"max_seq_length": 16, "truncation": "keep_end"},
        "preference truncated to nothing: an answer of 17 tokens leaves no room for its prompt in max_seq_length 16",
    ),
]


@pytest.mark.parametrize(("record", "options", "reason"), NOT_COMPARABLE)
def test_preferences_that_cannot_be_compared(
    prepare: Prepare, record: Record, options: dict[str, Any], reason: str
) -> None:
    write_between("preference", record)
    check(prepare("preference", **options), [f"train.jsonl:2: {reason}"], [1, 3])


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("preference", "rejected", "missing rejected: the row has prompt, chosen"),
        ("preference", "chosen", "missing chosen: the row has prompt, rejected"),
        ("prompt_completion", "completion", "missing completion: the row has prompt"),
        ("kto", "label", "missing label: this looks like prompt_completion; set task_type: sft"),
    ],
)
@pytest.mark.parametrize("data_format", ["auto", None])
def test_a_row_without_a_key_does_not_hide_the_format(
    prepare: Prepare, name: str, key: str, reason: str, data_format: str | None
) -> None:
    """It looks like another format; detected or named, the format of the others is the file's."""
    write_between(name, {written: value for written, value in GOOD[name].items() if written != key})
    check(prepare(name, data_format=data_format or name), [f"train.jsonl:2: {reason}"], [1, 3])


def test_columns_that_are_not_read_are_named(prepare: Prepare) -> None:
    """Of prompts, all are kept for rewards."""
    for name, record in GOOD.items():
        Path("train.jsonl").write_text(json.dumps({**record, "zzz": 1}) + "\n")
        data = prepare(name)
        is_prompt = name == "prompt_only"
        assert data.report.unread_columns == ({} if is_prompt else {"zzz": 1})
        kept = {"solution": "b", "zzz": 1, "prompt": "a"} if is_prompt else {}
        assert getattr(data.train[0], "columns", {}) == kept


def test_a_column_that_is_no_json(prepare: Prepare) -> None:
    rows = [{"prompt": "a", "score": 0.5}, {"prompt": "a", "score": float("nan")}, {"prompt": "a", "score": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "train.parquet")
    check(prepare("prompt_only", "train.parquet"), ["train.parquet:2: column is not JSON: score holds nan"], [1, 3])


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_a_file_without_rows(prepare: Prepare, name: str) -> None:
    Path("train.jsonl").write_text(" \n\n")
    with pytest.raises(DataError) as caught:
        prepare(name)
    assert str(caught.value) == "train_file: train.jsonl holds no rows; put data there or name another file"


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_bad_rows_stop_the_run_beyond_their_share(prepare: Prepare, name: str) -> None:
    good = json.dumps(GOOD[name]) + "\n"
    Path("train.jsonl").write_text(good * 97 + "{\n" + "[]\n" + good)
    assert prepare(name, max_bad_rows=0.02).report.rows_used == 98
    with pytest.raises(DataError) as caught:
        prepare(name, max_bad_rows=0.01)
    assert caught.value.exit_code == 2
    assert caught.value.messages == (
        "train_file: 2 of 100 rows cannot be used (1 bad JSON, 1 not an object), a share of 0.0200; max_bad_rows "
        "allows 0.01: correct the data, or raise max_bad_rows",
        "train.jsonl:98: bad JSON: expecting property name enclosed in double quotes, column 2",
        "train.jsonl:99: not an object: a list",
    )
    Path("train.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="^train_file: no usable row: 1 of 1 rows cannot be used"):
        prepare(name, max_bad_rows=1.0)


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_a_link_that_loops_in_a_folder(prepare: Prepare, name: str) -> None:
    write_between(name, {"x": 1})
    Path("data").mkdir()
    Path("train.jsonl").rename("data/train.jsonl")
    Path("data/again").symlink_to(Path("data").absolute())
    data = prepare(name, "data")
    assert [str(failure.source) for failure in data.report.failures] == ["data/train.jsonl:2"]
    assert [str(sample.source) for sample in data.train] == ["data/train.jsonl:1", "data/train.jsonl:3"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_a_file_that_may_not_be_read(prepare: Prepare, name: str) -> None:
    write_between(name, GOOD[name])
    Path("train.jsonl").chmod(0)
    with pytest.raises(UserError, match="^train_file: train.jsonl cannot be read"):
        prepare(name)


class WritingEncoder:
    """Encodes as another does, and adds a row to the file that is being read."""

    def __init__(self, encoder: RowEncoder, path: Path) -> None:
        self.encoder = encoder
        self.path = path
        self.row_kind, self.keep_text, self.facts = encoder.row_kind, encoder.keep_text, encoder.facts

    def encode_rows(self, rows: Sequence[Row]) -> list[EncodedRow | RowError]:
        with self.path.open("a") as file:
            file.write("{\n")
        return self.encoder.encode_rows(rows)


@pytest.mark.parametrize("name", ONE_OF_A_KIND.values())
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    path, kind = tmp_path / "train.jsonl", load_format(name).row_kind
    path.write_text((json.dumps(GOOD[name]) + "\n") * 5000)
    section = DataSection(train_file=[str(path)])
    renderer = Renderer(byte_tokenizer, load_chat_template("auto", byte_tokenizer))
    encoder = WritingEncoder(build_row_encoder(section, kind, byte_tokenizer, renderer), path)
    with pytest.raises(DataError) as caught:
        prepare_data(section, encoder)
    assert str(caught.value) == f"{path}: changed while it was read; start again when nothing writes to it"

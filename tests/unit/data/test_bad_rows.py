"""The table of bad rows: each in a file between two good ones, over every format, named by its line and reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import DataError
from component.config.schema import DataSection
from component.data.formats.interface import load_format
from component.data.reading import read_rows
from component.data.rows import Failure, Row
from component.data.sources import DataFile
from component.data.tally import Tally
from component.registry import FORMATS

Record = dict[str, Any]


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
    "segments": {"segments": [{"text": "a", "supervised": False}, {"text": "b", "supervised": True}]},
    "text": {"text": "a b"},
    "preference": {"prompt": [ASK], "chosen": [REPLY], "rejected": [OTHER]},
    "kto": {"prompt": [ASK], "completion": [REPLY], "label": True},
    "prompt_only": {"prompt": "a", "solution": "b"},
}

DEEP = '{"x": ' + "[" * 10**5 + "]" * 10**5 + "}"
LONG = b'{"x": "' + b"x" * 2**24 + b'"}'

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
    "over-long line": (lambda line: LONG, "over-long record: 16,777,226 bytes, at most 16,777,216 are read"),
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
        "preference": (GOOD["kto"], "missing chosen: this looks like prompt_completion; set task_type: sft"),
        "kto": (
            GOOD["preference"],
            "missing completion: this looks like preference; set task_type: dpo, orpo or reward",
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


def read_file(path: Path, name: str) -> tuple[list[Row], list[str]]:
    """Read a file that is of a format: its rows, and why other records are none."""
    section = DataSection(train_file=[str(path)], data_format=name)
    read = read_rows(DataFile(path, path.name), section, load_format(name).row_kind)
    return divide(read.rows)


def divide(items: Iterable[Row | Failure]) -> tuple[list[Row], list[str]]:
    items = list(items)
    return [item for item in items if isinstance(item, Row)], [str(item) for item in items if isinstance(item, Failure)]


def check_second_line(path: Path, name: str, line: str | bytes, reason: str | None, start: bytes = b"") -> None:
    """The line between two good ones is dropped for its reason, or used where there is none."""
    good = json.dumps(GOOD[name])
    content = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(start + good.encode() + b"\n" + content + b"\n" + good.encode() + b"\n")
    rows, failures = read_file(path, name)
    assert failures == ([] if reason is None else [f"train.jsonl:2: {reason}"])
    lines = [row.source.line for row in rows]
    assert lines == [1, 3] if reason is not None or not content.strip() else lines == [1, 2, 3]


def test_every_format_is_in_the_table() -> None:
    assert set(GOOD) == set(FORMATS.names())


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("case", LINES)
def test_a_line_that_is_spoilt(case: str, name: str, tmp_path: Path) -> None:
    spoil, reason = LINES[case]
    line = spoil(json.dumps(GOOD[name]))
    reason = reason.format(column=len(line) + 1) if reason else None
    start = b"\xef\xbb\xbf" if case == "byte-order mark" else b""
    check_second_line(tmp_path / "train.jsonl", name, line, reason, start)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, formats in RECORDS.items() for name in formats])
def test_a_record_that_is_bad(case: str, name: str, tmp_path: Path) -> None:
    record, reason = RECORDS[case][name]
    check_second_line(tmp_path / "train.jsonl", name, json.dumps(record), reason)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, formats in RECORDS.items() for name in formats])
def test_a_bad_record_of_an_array_is_named_by_its_first_line(case: str, name: str, tmp_path: Path) -> None:
    record, reason = RECORDS[case][name]
    path = tmp_path / "train.json"
    path.write_text(json.dumps([GOOD[name], record, GOOD[name]], indent=1))
    _, failures = read_file(path, name)
    line = 2 + len(json.dumps(GOOD[name], indent=1).splitlines())
    assert failures == ([] if reason is None else [f"train.json:{line}: {reason}"])


@pytest.mark.parametrize("name", GOOD)
def test_a_misspelt_optional_key_is_one_notice(name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text((json.dumps({**GOOD[name], "systm": "s", "toolss": []}) + "\n") * 3)
    rows, failures = read_file(path, name)
    tally = Tally()
    for row in rows:
        tally.parsed(row)
    assert len(rows) == 3 and not failures
    assert set(tally.notices.values()) <= {3} and len(tally.notices) <= 2


@pytest.mark.parametrize("name", GOOD)
def test_detection_finds_the_format_between_bad_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("{\n[]\n" + json.dumps(GOOD[name]) + "\n")
    read = read_rows(DataFile(path, "f"), DataSection(train_file=["f"]), load_format(name).row_kind)
    assert (read.data_format, [len(items) for items in divide(read.rows)]) == (name, [1, 2])


def test_columns_with_other_names(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"query": "a", "reply": "b"}\n{"query": "a", "reply": " "}\n{"query": "a", "question": "c"}\n')

    def read(columns: dict[str, str], name: str = "auto") -> tuple[list[Row], list[str]]:
        section = DataSection(train_file=["f"], data_format=name, columns=columns)
        return divide(read_rows(DataFile(path, "f"), section, "messages").rows)

    rows, failures = read({"query": "question", "reply": "answer"})
    assert [message.content for message in rows[0].messages] == ["a", "b"]
    assert failures == [
        "f:2: empty answer: answer",
        "f:3: two columns are question: columns maps another one to it",
    ]
    cases = {
        ("querry", "question"): "f: columns: there is no column 'querry' in the first rows; did you mean query?",
        ("zzz", "question"): "f: columns: there is no column 'zzz' in the first rows; "
        "the rows have query, reply, question",
    }
    for (written, key), message in cases.items():
        with pytest.raises(DataError) as caught:
            read({written: key})
        assert str(caught.value) == message
    with pytest.raises(DataError) as caught:
        read({"query": "qestion", "reply": "answer"}, "qa")
    expected = "columns: 'query' is mapped to 'qestion', which qa does not read; did you mean question?"
    assert str(caught.value) == expected

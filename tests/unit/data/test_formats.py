"""Every format: what its rows become, and the exact reason for every row that cannot be used."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from component.config.errors import DataError
from component.data.formats.conversation import EMPTY_PROMPT, UNANSWERED
from component.data.formats.detect import check_format, detect_format
from component.data.formats.interface import load_format
from component.data.rows import Message, Row, RowError, Segment, Source
from component.registry import FORMATS

SOURCE = Source("data.jsonl", 7)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"name": "add", "parameters": {"type": "object"}}


def parse(format_name: str, record: dict[str, Any]) -> Row:
    return load_format(format_name).parse(record, SOURCE)


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def context(text: str) -> Message:
    return Message("assistant", text, weight=0)


def human(text: Any) -> dict[str, Any]:
    return {"from": "human", "value": text}


def gpt(text: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": text}


def says(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


GOOD = [
    (
        "firefly",
        {
            "conversation_id": 3,
            "category": "Brainstorming",
            "conversation": [{"human": " hi \n", "assistant": "yo "}, {"human": "b", "assistant": "c"}],
            "dataset": "moss",
        },
        (user(" hi \n"), assistant("yo "), user("b"), assistant("c")),
    ),
    (
        "firefly",
        {"system": "Be brief.", "conversation": [{"human": "a", "assistant": "b"}]},
        (system("Be brief."), user("a"), assistant("b")),
    ),
    ("firefly", {"system": None, "conversation": [{"human": "a", "assistant": "b"}]}, (user("a"), assistant("b"))),
    ("alpaca", {"instruction": "Add", "input": "1 2", "output": "3"}, (user("Add\n1 2"), assistant("3"))),
    ("alpaca", {"instruction": "Add", "input": "", "output": "3"}, (user("Add"), assistant("3"))),
    ("alpaca", {"instruction": "Add", "input": None, "output": "3"}, (user("Add"), assistant("3"))),
    (
        "alpaca",
        {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]},
        (system("s"), user("a"), assistant("b"), user("c"), assistant("d")),
    ),
    ("sharegpt", {"conversations": [human("a"), gpt("b")]}, (user("a"), assistant("b"))),
    (
        "sharegpt",
        {"conversations": [{"from": "system", "value": "s"}, human("a"), {"from": "bard", "value": "b"}]},
        (system("s"), user("a"), assistant("b")),
    ),
    ("sharegpt", {"system": "s", "conversations": [human("a"), gpt("b")]}, (system("s"), user("a"), assistant("b"))),
    (
        "sharegpt",
        {
            "conversations": [
                human("a"),
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "2"},
                gpt("two"),
            ]
        },
        (user("a"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "2"), assistant("two")),
    ),
    (
        "openai",
        {"messages": [says("developer", "s"), says("user", "a"), says("assistant", "b")]},
        (system("s"), user("a"), assistant("b")),
    ),
    (
        "openai",
        {"messages": [says("system", None), says("user", "a"), says("assistant", "b")]},
        (user("a"), assistant("b")),
    ),
    (
        "openai",
        {
            "messages": [
                says("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
                says("assistant", "c", reasoning_content="because"),
            ]
        },
        (user("ab"), Message("assistant", "c", reasoning_content="because")),
    ),
    (
        "openai",
        {
            "messages": [
                says("user", "a"),
                says(
                    "assistant",
                    None,
                    tool_calls=[{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
                ),
                says("tool", "2", tool_call_id="c1", name="add"),
                says("assistant", "two"),
            ]
        },
        (
            user("a"),
            Message("assistant", "", tool_calls=({"id": "c1", **CALL},)),
            Message("tool", "2", tool_call_id="c1", name="add"),
            assistant("two"),
        ),
    ),
    (
        "openai",
        {
            "messages": [
                says("user", "a"),
                says("assistant", None, function_call={"name": "add", "arguments": {"a": 1}}),
            ]
        },
        (user("a"), Message("assistant", "", tool_calls=(CALL,))),
    ),
    (
        "openai",
        {
            "messages": [
                says("user", "a"),
                says("assistant", "b", weight=0),
                says("user", "c"),
                says("assistant", "d", weight=1),
            ]
        },
        (user("a"), context("b"), user("c"), assistant("d")),
    ),
    (
        "sharegpt",
        {"conversations": [human("a"), {**gpt("b"), "weight": 0}, human("c"), gpt("d")]},
        (user("a"), context("b"), user("c"), assistant("d")),
    ),
    ("qa", {"question": "a", "answer": "b"}, (user("a"), assistant("b"))),
    ("qa", {"question": "a", "answer": "b", "system": "s"}, (system("s"), user("a"), assistant("b"))),
    (
        "prompt_completion",
        {"prompt": [says("user", "a")], "completion": [says("assistant", "b")]},
        (user("a"), assistant("b")),
    ),
    (
        "prompt_completion",
        {
            "prompt": [says("system", "s"), says("user", "a"), says("assistant", "b"), says("user", "c")],
            "completion": "d",
        },
        (system("s"), user("a"), context("b"), user("c"), assistant("d")),
    ),
]

ROWS = [
    (
        "segments",
        {"segments": [{"text": "Q: a", "supervised": False}, {"text": " b</s>", "supervised": True}]},
        {"segments": (Segment("Q: a", False), Segment(" b</s>", True))},
    ),
    (
        "prompt_completion",
        {"prompt": "The sky is", "completion": " blue."},
        {"segments": (Segment("The sky is", False), Segment(" blue.", True)), "ends_with_eos": True},
    ),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"text": "a", "chosen": "b", "rejected": "c"},
    ),
    (
        "preference",
        {
            "prompt": [says("user", "a")],
            "chosen": [says("assistant", "b")],
            "rejected": [says("assistant", "c")],
            "system": "s",
        },
        {"messages": (system("s"), user("a")), "chosen": (assistant("b"),), "rejected": (assistant("c"),)},
    ),
    (
        "preference",
        {"prompt": [says("user", "a")], "chosen": "b", "rejected": "c"},
        {"messages": (user("a"),), "chosen": (assistant("b"),), "rejected": (assistant("c"),)},
    ),
    (
        "preference",
        {
            "chosen": [says("system", "s"), says("user", "a"), says("assistant", "b")],
            "rejected": [says("system", "s"), says("user", "a"), says("assistant", "c")],
        },
        {"messages": (system("s"), user("a")), "chosen": (assistant("b"),), "rejected": (assistant("c"),)},
    ),
    (
        "preference",
        {
            "prompt": "a",
            "prompt_id": "7",
            "chosen": [says("user", "a"), says("assistant", "b"), says("user", "d"), says("assistant", "e")],
            "rejected": [says("user", "a"), says("assistant", "b"), says("user", "d"), says("assistant", "f")],
        },
        {
            "messages": (user("a"), assistant("b"), user("d")),
            "chosen": (assistant("e"),),
            "rejected": (assistant("f"),),
            "columns": {"prompt_id": "7"},
        },
    ),
    (
        "preference",
        {"instruction": "a", "input": "x", "history": [["h", "i"]], "chosen": "b", "rejected": "c", "system": "s"},
        {
            "messages": (system("s"), user("h"), assistant("i"), user("a\nx")),
            "chosen": (assistant("b"),),
            "rejected": (assistant("c"),),
        },
    ),
    (
        "preference",
        {"question": "a", "chosen": "b", "rejected": "c"},
        {"messages": (user("a"),), "chosen": (assistant("b"),), "rejected": (assistant("c"),)},
    ),
    (
        "preference",
        {"conversations": [human("a")], "chosen": gpt("b"), "rejected": gpt("c"), "system": "s", "tools": [TOOL]},
        {
            "messages": (system("s"), user("a")),
            "chosen": (assistant("b"),),
            "rejected": (assistant("c"),),
            "tools": ({"type": "function", "function": TOOL},),
        },
    ),
    (
        "kto",
        {"prompt": "a", "completion": "b", "label": False},
        {"segments": (Segment("a", False), Segment("b", True)), "ends_with_eos": True, "label": False},
    ),
    (
        "kto",
        {"prompt": [says("user", "a")], "completion": [says("assistant", "b")], "label": "True"},
        {"messages": (user("a"), assistant("b")), "label": True},
    ),
    (
        "kto",
        {
            "messages": [says("user", "a"), says("assistant", "b"), says("user", "c"), says("assistant", "d")],
            "label": True,
            "x": 1,
        },
        {"messages": (user("a"), context("b"), user("c"), assistant("d")), "label": True, "columns": {"x": 1}},
    ),
    ("prompt_only", {"prompt": "2+2", "solution": "4"}, {"text": "2+2", "columns": {"solution": "4"}}),
    (
        "prompt_only",
        {"messages": [says("user", "2+2")], "label": "4"},
        {"messages": (user("2+2"),), "columns": {"label": "4"}},
    ),
]


#: What a table holds of a row beside those of another form: each key that only they have, with nothing under it.
OTHER_FORMS = {
    "preference": ("prompt", "conversations", "instruction", "question", "system", "tools"),
    "kto": ("prompt", "completion", "messages", "tools"),
    "prompt_only": ("prompt", "messages", "tools"),
}


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize(("name", "record", "fields"), [case for case in ROWS if case[0] in OTHER_FORMS])
def test_rows_of_several_forms_may_share_a_table(
    name: str, record: dict[str, Any], fields: dict[str, Any], nothing: str | None
) -> None:
    beside = {key: nothing for key in OTHER_FORMS[name] if key not in record}
    row = parse(name, beside | record)
    assert {key: value for key, value in row.columns.items() if key not in beside} == fields.get("columns", {})
    assert dataclasses.replace(row, columns=fields.get("columns", {})) == Row(SOURCE, **fields)
    assert name != "prompt_only" or row.columns == fields["columns"]  # rewards read them


@pytest.mark.parametrize(("name", "record", "fields"), ROWS)
def test_a_good_record_becomes_its_row(name: str, record: dict[str, Any], fields: dict[str, Any]) -> None:
    assert parse(name, record) == Row(SOURCE, **fields)
    assert load_format(name).looks_like(record)


@pytest.mark.parametrize(("name", "record", "messages"), GOOD)
def test_a_good_record_becomes_its_messages(name: str, record: dict[str, Any], messages: tuple[Message, ...]) -> None:
    row = parse(name, record)
    assert row.messages == messages
    assert row.source == SOURCE
    assert row.notices == ()
    assert load_format(name).looks_like(record)


def piece(text: Any, supervised: Any) -> dict[str, Any]:
    return {"segments": [{"text": text, "supervised": supervised}]}


def pair(question: str, chosen: str, other_question: str, rejected: str) -> dict[str, Any]:
    """TRL's implicit form."""
    return {
        "chosen": [says("user", question), says("assistant", chosen)],
        "rejected": [says("user", other_question), says("assistant", rejected)],
    }


def turns(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"conversation": [{"human": question, "assistant": answer} for question, answer in pairs]}


BAD = [
    ("firefly", {}, "missing conversation: the row has nothing"),
    ("firefly", {"converstion": []}, "missing conversation: the row has 'converstion'; did you mean conversation?"),
    ("firefly", {"prompt": "a", "x": 1}, "missing conversation: the row has prompt, x"),
    ("firefly", {"conversation": None}, "null conversation"),
    ("firefly", {"conversation": []}, "empty conversation"),
    ("firefly", {"conversation": "hi"}, "conversation is not a list: a string"),
    ("firefly", {"conversation": ["hi"]}, "turn is not an object: turn 1 is a string"),
    ("firefly", turns(("a", 5)), "content is not text: assistant in turn 1 is a number"),
    ("firefly", turns(("a", None)), "null content: assistant in turn 1"),
    ("firefly", turns(("a", "b"), ("c", "")), "empty answer: turn 2"),
    ("firefly", turns(("a", " \n\t")), "empty answer: turn 1"),
    (
        "firefly",
        {"conversation": [{"humna": "a", "assistant": "b"}]},
        "unknown turn key: 'humna' in turn 1; did you mean human?",
    ),
    ("firefly", {"conversation": [{"human": "a"}]}, "missing turn key: assistant in turn 1, which has human"),
    (
        "firefly",
        {"conversations": [human("a"), gpt("b")]},
        "missing conversation: this looks like sharegpt; set data_format: sharegpt",
    ),
    ("firefly", {"system": 5, **turns(("a", "b"))}, "content is not text: system is a number"),
    ("alpaca", {"instruction": "a"}, "missing output: the row has instruction"),
    ("alpaca", {"instruction": "a", "ouput": "b"}, "missing output: the row has 'ouput'; did you mean output?"),
    ("alpaca", {"instruction": "a", "output": ""}, "empty answer: output"),
    ("alpaca", {"instruction": "a", "output": None}, "null content: output"),
    (
        "alpaca",
        {"instruction": ["a", 1], "output": "b"},
        "content is not text: instruction has a number among its parts",
    ),
    ("alpaca", {"instruction": "a", "output": "b", "history": {}}, "history is not a list: an object"),
    (
        "alpaca",
        {"instruction": "a", "output": "b", "history": [["q"]]},
        "history turn is not a [question, answer] pair: history turn 1",
    ),
    (
        "alpaca",
        {"messages": [says("user", "a")]},
        "missing instruction: this looks like openai; set data_format: openai",
    ),
    ("sharegpt", turns(("a", "b")), "missing conversations: this looks like firefly; set data_format: firefly"),
    ("sharegpt", {"conversations": None}, "null conversations"),
    ("sharegpt", {"conversations": []}, "empty conversations"),
    ("sharegpt", {"conversations": [human("a")]}, "no answer at all"),
    ("sharegpt", {"conversations": [human("a"), gpt("")]}, "empty answer: turn 2"),
    ("sharegpt", {"conversations": [human("a"), human("b")]}, "wrong role order: user after user in turn 2"),
    (
        "sharegpt",
        {"conversations": [gpt("a"), human("b")]},
        "wrong role order: the conversation begins with assistant in turn 1",
    ),
    (
        "sharegpt",
        {"conversations": [human("a"), gpt("b"), {"from": "observation", "value": "c"}]},
        "wrong role order: a tool result without a call in turn 3",
    ),
    (
        "sharegpt",
        {"conversations": [human("a"), {"from": "gtp", "value": "b"}]},
        "unknown role: 'gtp' in turn 2; did you mean gpt?",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "narrator", "value": "b"}]},
        "unknown role: 'narrator' in turn 1; known are system, human, user, gpt, assistant, chatgpt, model, bard, "
        "function_call, observation, tool, function_response",
    ),
    (
        "sharegpt",
        {"system": "a", "conversations": [{"from": "system", "value": "b"}, human("c"), gpt("d")]},
        "two system messages",
    ),
    (
        "sharegpt",
        {"conversations": [{"form": "human", "value": "a"}]},
        "unknown turn key: 'form' in turn 1; did you mean from?",
    ),
    (
        "sharegpt",
        {"conversations": [says("user", "a"), says("assistant", "b")]},
        "missing turn key: from in turn 1, which has role and content; "
        "this looks like openai; rename conversations to messages and set data_format: openai",
    ),
    (
        "sharegpt",
        {"conversations": [human("a"), {"from": "function_call", "value": "add(1)"}]},
        "bad JSON in function_call: turn 2",
    ),
    (
        "sharegpt",
        {"conversations": [human("a"), {"from": "function_call", "value": '{"arguments": {}}'}]},
        "not a tool call: no function name in turn 2",
    ),
    ("sharegpt", {"conversations": [human("a"), gpt("b")], "tools": "[oops"}, "bad JSON in tools"),
    ("sharegpt", {"conversations": [human("a"), gpt("b")], "tools": {}}, "tools are not a list of objects"),
    ("openai", {"messages": None}, "null messages"),
    ("openai", {"messages": []}, "empty messages"),
    ("openai", {"messages": ["hi"]}, "message is not an object: message 1 is a string"),
    ("openai", {"messages": [says("user", "a")]}, "no answer at all"),
    ("openai", {"messages": [says("user", "a"), says("assistant", None)]}, "null content: message 2"),
    (
        "openai",
        {"messages": [says("user", "a"), {"role": "assistant"}]},
        "missing turn key: content in message 2, which has role",
    ),
    ("openai", {"messages": [{"content": "a"}]}, "missing turn key: role in message 1, which has content"),
    (
        "openai",
        {"messages": [{"role": "user", "contnet": "a"}]},
        "unknown turn key: 'contnet' in message 1; did you mean content?",
    ),
    (
        "openai",
        {"messages": [says("user", [{"type": "image_url", "image_url": "x"}]), says("assistant", "b")]},
        "content is not text: message 1 has a part of type 'image_url'",
    ),
    ("openai", {"messages": [says("user", {"text": "a"})]}, "content is not text: message 1 is an object"),
    (
        "openai",
        {"messages": [says("system", "a"), says("system", "b"), says("user", "c"), says("assistant", "d")]},
        "two system messages",
    ),
    (
        "openai",
        {"messages": [says("user", "a"), says("system", "b"), says("assistant", "c")]},
        "wrong role order: system after user in message 2",
    ),
    (
        "openai",
        {"messages": [says("User", "a")]},
        "unknown role: 'User' in message 1; did you mean user?",
    ),
    (
        "openai",
        {"messages": [says(5, "a")]},
        "unknown role: 5 in message 1; known are system, developer, user, assistant, tool, function",
    ),
    (
        "openai",
        {"messages": [human("a"), gpt("b")]},
        "missing turn key: role in message 1, which has from and value; "
        "this looks like sharegpt; rename messages to conversations and set data_format: sharegpt",
    ),
    (
        "openai",
        {
            "messages": [
                says("user", "a"),
                says("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": "{"}}]),
            ]
        },
        "bad JSON in tool call arguments: message 2",
    ),
    ("text", {"text": None}, "null text"),
    ("text", {"text": " \n"}, "empty text"),
    ("text", {"text": 5}, "text is not a string: a number"),
    ("text", {"txet": "a"}, "missing text: the row has 'txet'; did you mean text?"),
    (
        "openai",
        {"messages": [says("user", "a"), says("assistant", "b", weight=0.5)]},
        "weight is neither 0 nor 1: 0.5 in message 2",
    ),
    (
        "openai",
        {"messages": [says("user", "a"), says("assistant", "b", weight=0)]},
        "no answer to learn from: all have weight 0",
    ),
    ("qa", {"question": "a"}, "missing answer: the row has question"),
    ("qa", {"question": "a", "anwser": "b"}, "missing answer: the row has 'anwser'; did you mean answer?"),
    ("qa", {"question": "a", "answer": "\n"}, "empty answer: answer"),
    ("qa", {"question": None, "answer": "b"}, "null content: question"),
    ("qa", {"instruction": "a", "output": "b"}, "missing question: this looks like alpaca; set data_format: alpaca"),
    ("prompt_completion", {"prompt": "a"}, "missing completion: the row has prompt"),
    ("prompt_completion", {"prompt": "a", "completion": " "}, "empty answer: completion"),
    ("prompt_completion", {"prompt": None, "completion": "b"}, "null prompt"),
    ("prompt_completion", {"prompt": 5, "completion": "b"}, "prompt is not text or a list of messages: a number"),
    ("prompt_completion", {"prompt": [], "completion": "b"}, "empty prompt"),
    (
        "prompt_completion",
        {"prompt": [says("assistant", "a")], "completion": "b"},
        "wrong role order: the conversation begins with assistant in prompt message 1",
    ),
    (
        "prompt_completion",
        {"prompt": [says("user", "a"), says("assistant", "b")], "completion": "c"},
        "wrong role order: the prompt ends with assistant in prompt message 2",
    ),
    (
        "prompt_completion",
        {"prompt": [says("user", "a")], "completion": [says("user", "b")]},
        "wrong role order: user after user in completion message 1",
    ),
    (
        "prompt_completion",
        {"chosen": "a", "rejected": "b"},
        "missing prompt: this looks like preference; set task_type: dpo, orpo, cpo or reward",
    ),
    ("segments", {"segments": []}, "empty segments"),
    ("segments", {"segments": None}, "null segments"),
    ("segments", {"segments": ["a"]}, "segment is not an object: segment 1 is a string"),
    ("segments", piece("a", False), "no answer at all: no segment is supervised"),
    ("segments", piece(" ", True), "empty answer: the supervised segments hold no text"),
    ("segments", piece(None, True), "null content: text in segment 1"),
    ("segments", piece(["a"], True), "content is not text: text in segment 1 is a list"),
    ("segments", piece("a", 1), "supervised is not true or false: a number in segment 1"),
    (
        "segments",
        {"segments": [{"text": "a", "label": True}]},
        "missing turn key: supervised in segment 1, which has text, label",
    ),
    (
        "segments",
        {"segments": [{"text": "a", "suprevised": True}]},
        "unknown turn key: 'suprevised' in segment 1; did you mean supervised?",
    ),
    ("preference", {"prompt": "a", "chosen": "b"}, "missing rejected: the row has prompt, chosen"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": None}, "null rejected"),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejceted": "c"},
        "missing rejected: the row has 'rejceted'; did you mean rejected?",
    ),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen equals rejected"),
    ("preference", {"prompt": "a", "chosen": " ", "rejected": "b"}, "empty answer: chosen"),
    ("preference", {"instruction": "a", "chosen": "b", "rejected": "b"}, "chosen equals rejected"),
    ("alpaca", {"instruction": "a", "output": ["b", "c"]}, "content is not text: output is a list of 2 texts"),
    ("qa", {"question": ["a", "b"], "answer": "c"}, "content is not text: question is a list of 2 texts"),
    ("preference", {"prompt": 5, "chosen": "a", "rejected": "b"}, "prompt is not text or a list of messages: a number"),
    ("preference", pair("a", "b", "a", "b"), "chosen equals rejected"),
    ("preference", pair("a", "b", "x", "c"), "different prompts: chosen and rejected begin with different messages"),
    (
        "preference",
        {
            "chosen": [says("system", "s"), says("user", "a"), says("assistant", "b")],
            "rejected": [says("system", "s"), says("user", "x"), says("assistant", "c")],
        },
        "different prompts: chosen message 2 is user's, not an answer",
    ),
    (
        "preference",
        {"chosen": [says("user", "a"), says("assistant", "b")], "rejected": [says("user", "a")]},
        "empty answer: rejected ends with the prompt",
    ),
    ("preference", pair("a", "b", "a", ""), "empty answer: rejected message 1"),
    ("preference", {"conversations": [human("a")], "chosen": gpt("b"), "rejected": gpt("b")}, "chosen equals rejected"),
    (
        "preference",
        {"conversations": [human("a")], "chosen": gpt(""), "rejected": gpt("b")},
        "empty answer: chosen message 1",
    ),
    (
        "preference",
        {"conversations": [human("a"), gpt("b")], "chosen": gpt("c"), "rejected": gpt("d")},
        "wrong role order: the prompt ends with assistant in prompt message 2",
    ),
    (
        "preference",
        {"conversations": [human("a")], "chosen": human("b"), "rejected": gpt("c")},
        "wrong role order: user after user in chosen message 1",
    ),
    (
        "preference",
        {"conversations": [human("a")], "chosen": "b", "rejected": gpt("c")},
        "turn is not an object: chosen 1 is a string",
    ),
    ("preference", {"messages": [says("user", "a")]}, "missing chosen: this looks like openai; set task_type: sft"),
    ("kto", {"prompt": "a", "completion": "b"}, "missing label: this looks like prompt_completion; set task_type: sft"),
    ("kto", {"prompt": "a", "completion": "b", "label": 1}, "label is not true or false: 1"),
    ("kto", {"prompt": "a", "completion": "b", "label": "good"}, "label is not true or false: 'good'"),
    ("kto", {"prompt": "a", "completion": "b", "label": None}, "label is not true or false: null"),
    ("kto", {"prompt": "a", "completion": "", "label": True}, "empty answer: completion"),
    ("kto", {"messages": [says("user", "a")], "label": True}, "no answer at all: the last message is the user's"),
    ("kto", {"messages": [], "label": True}, "empty messages"),
    ("prompt_only", {"prompt": " "}, "empty prompt"),
    ("prompt_only", {"prompt": None}, "null prompt"),
    ("prompt_only", {"messages": [says("user", " ")]}, "empty prompt"),
    ("prompt_only", {"promt": "a"}, "missing prompt: the row has 'promt'; did you mean prompt?"),
    (
        "prompt_only",
        {"messages": [says("user", "a"), says("assistant", "b")]},
        "wrong role order: the prompt ends with assistant in messages message 2",
    ),
    ("text", turns(("a", "b")), "missing text: this looks like firefly; set task_type: sft"),
]


@pytest.mark.parametrize(("name", "record", "reason"), BAD)
def test_a_bad_record_gives_its_reason(name: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse(name, record)
    assert str(caught.value) == reason


@pytest.mark.parametrize("written", [[TOOL], '[{"name": "add", "parameters": {"type": "object"}}]'])
def test_sharegpt_wraps_bare_tools(written: Any) -> None:
    row = parse("sharegpt", {"conversations": [human("a"), gpt("b")], "tools": written})
    assert row.tools == ({"type": "function", "function": TOOL},)


@pytest.mark.parametrize("written", [None, "", "[]", []])
def test_no_tools(written: Any) -> None:
    assert parse("sharegpt", {"conversations": [human("a"), gpt("b")], "tools": written}).tools == ()


def test_openai_tools_stay_as_they_are() -> None:
    tool = {"type": "function", "function": TOOL}
    assert parse("openai", {"messages": [says("user", "a"), says("assistant", "b")], "tools": [tool]}).tools == (tool,)


def test_what_is_not_read_is_named() -> None:
    row = parse("firefly", {"systm": "s", "category": "x", "conversation": [{"human": "a", "assistant": "b", "id": 1}]})
    assert row.columns == {"systm": "s", "category": "x"}
    assert row.notices == ("key 'systm' is not read; did you mean system?", "turn key 'id' is not read")


def test_odd_conversations_are_used_with_a_notice() -> None:
    row = parse("openai", {"messages": [says("user", ""), says("assistant", "a"), says("user", "b")]})
    assert row.notices == (UNANSWERED, EMPTY_PROMPT)


@pytest.mark.parametrize(
    ("records", "row_kind", "name"),
    [
        ([turns(("a", "b"))], "messages", "firefly"),
        ([{"conversation": None}, {"oops": 1}], "messages", "firefly"),
        ([{"instruction": "a", "output": "b"}], "messages", "alpaca"),
        ([{"conversations": []}], "messages", "sharegpt"),
        ([{"messages": [], "text": "a"}], "messages", "openai"),
        ([{"messages": [], "text": "a"}], "text", "text"),
        ([{"question": "a", "answer": "b"}], "messages", "qa"),
        ([{"prompt": "a", "completion": "b"}], "messages", "prompt_completion"),
        ([{"segments": []}], "messages", "segments"),
        ([{"chosen": [], "rejected": []}], "preference", "preference"),
        ([{"conversations": [], "chosen": {}, "rejected": {}}], "preference", "preference"),
        ([{"prompt": "a", "completion": "b", "label": 1}], "labelled", "kto"),
        ([{"messages": [], "label": False}], "labelled", "kto"),
        ([{"prompt": "a", "answer": "b"}], "prompt", "prompt_only"),
        ([{"messages": [], "label": "b"}], "prompt", "prompt_only"),
        # Rows that lack a key look like less than the others.
        ([{"prompt": "a", "chosen": "b"}, {"prompt": "a", "chosen": "b", "rejected": "c"}], "preference", "preference"),
        ([{"conversations": [], "rejected": {}}, {"chosen": {}, "rejected": {}}], "preference", "preference"),
        ([{"prompt": "a", "completion": "b"}, {"messages": [], "label": True}], "labelled", "kto"),
        ([{"prompt": "a"}, {"prompt": "a", "completion": "b"}], "messages", "prompt_completion"),
    ],
)
def test_detection(records: list[dict[str, Any]], row_kind: str, name: str) -> None:
    assert detect_format(records, row_kind, "f") == name


@pytest.mark.parametrize(
    ("records", "row_kind", "message"),
    [
        (
            [{"a": 1}, {"b": 2}],
            "messages",
            "f: data_format: no known format, the rows have the keys a, b; "
            "use one of firefly, alpaca, sharegpt, openai, qa, prompt_completion, segments",
        ),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "c"}],
            "messages",
            "f: data_format: the rows look like preference, which this task cannot use; "
            "set task_type: dpo, orpo, cpo or reward",
        ),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2 + [{"messages": []}],
            "messages",
            "f: data_format: the rows look like preference, which this task cannot use; "
            "set task_type: dpo, orpo, cpo or reward",
        ),
        (
            [{"messages": [], "chosen": "b", "rejected": "c"}],
            "messages",
            "f: data_format: the rows look like preference, which this task cannot use; "
            "set task_type: dpo, orpo, cpo or reward, or data_format: openai to train on its answers all the same",
        ),
        (
            [{"prompt": "a", "completion": "b", "label": True}],
            "messages",
            "f: data_format: the rows look like kto, which this task cannot use; "
            "set task_type: kto, or data_format: prompt_completion to train on its answers all the same",
        ),
        (
            [{"prompt": "a", "completion": "b", "label": True}] * 2 + [{"prompt": "a", "completion": "b"}],
            "messages",
            "f: data_format: the rows look like kto, which this task cannot use; "
            "set task_type: kto, or data_format: prompt_completion to train on its answers all the same",
        ),
        (
            [{"prompt": "a", "solution": "b"}],
            "messages",
            "f: data_format: the rows look like prompt_only, which this task cannot use; give it one of "
            "firefly, alpaca, sharegpt, openai, qa, prompt_completion, segments, or set task_type: grpo",
        ),
        (
            [{"text": "a"}],
            "messages",
            "f: data_format: the rows look like text, which this task cannot use; "
            "give it one of firefly, alpaca, sharegpt, openai, qa, prompt_completion, segments, "
            "or set task_type: pretrain",
        ),
        (
            [{"messages": []}, {"conversations": []}],
            "messages",
            "f: data_format: the first rows look like openai and sharegpt; "
            "set data_format to the one that is meant, or put each format in a file of its own",
        ),
    ],
)
def test_detection_names_what_it_found(records: list[dict[str, Any]], row_kind: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        detect_format(records, row_kind, "f")
    assert str(caught.value) == message


def test_a_wrong_format_names_the_right_one() -> None:
    with pytest.raises(DataError) as caught:
        check_format("firefly", [{"messages": []}], "messages", "f")
    expected = "f: data_format: the rows are not firefly; this looks like openai; set data_format: openai, or auto"
    assert str(caught.value) == expected
    with pytest.raises(DataError) as caught:
        check_format("text", [{"text": "a"}], "messages", "f")
    expected = (
        "data_format: text holds plain text, this task needs conversations: "
        "one of firefly, alpaca, sharegpt, openai, qa, prompt_completion, segments"
    )
    assert str(caught.value) == expected


@pytest.mark.parametrize("is_static", [True, False])
def test_a_format_of_ones_own_takes_one_class(is_static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS._entries))

    if is_static:

        @FORMATS.register("quiz")
        class Static:
            row_kind = "messages"

            @staticmethod
            def looks_like(record: Any) -> bool:
                return "quiz" in record

            @staticmethod
            def parse(record: Any, source: Source) -> Row:
                return Row(source, messages=(user(record["quiz"]), assistant(record["key"])))

    else:

        @FORMATS.register("quiz")
        class Plain:
            row_kind = "messages"

            def looks_like(self, record: Any) -> bool:
                return "quiz" in record

            def parse(self, record: Any, source: Source) -> Row:
                return Row(source, messages=(user(record["quiz"]), assistant(record["key"])))

    record = {"quiz": "q", "key": "a"}
    assert detect_format([record], "messages", "f") == "quiz"
    assert parse("quiz", record).messages == (user("q"), assistant("a"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "user", "gpt", "[1]", '{"name": "f"}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "name"]), inner),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*path, key), *places(item, (*path, key))]]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), case=st.sampled_from(GOOD + ROWS), value=JSON_VALUES, reader=st.sampled_from(FORMATS.names()))
def test_any_record_is_a_row_or_has_a_reason(data: st.DataObject, case: Any, value: Any, reader: str) -> None:
    record = copy.deepcopy(case[1])
    *parents, last = data.draw(st.sampled_from(places(record)))
    target = record
    for key in parents:
        target = target[key]
    target[last] = value
    for name in {case[0], reader}:
        try:
            row = parse(name, record)
        except RowError as error:
            assert str(error).strip()
        else:
            assert row.text or row.segments or row.messages or row.chosen
            if load_format(name).row_kind == "messages":
                assert row.segments or any(message.role == "assistant" for message in row.messages)


HALF = r'"\ud800"'  # as JSON text in a record, where it is no surrogate yet


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        (
            "openai",
            {"messages": [says("user", "a"), says("assistant", "b")], "tools": f'[{{"name": {HALF}}}]'},
            "lone surrogate: half of a \\u pair stands alone, in tools",
        ),
        (
            "openai",
            {"messages": f'[{{"role": "user", "content": {HALF}}}, {{"role": "assistant", "content": "b"}}]'},
            "lone surrogate: half of a \\u pair stands alone, in messages",
        ),
        (
            "sharegpt",
            {"conversations": [human("a"), {"from": "function_call", "value": f'{{"name": {HALF}}}'}]},
            "lone surrogate: half of a \\u pair stands alone, in function_call of turn 2",
        ),
        (
            "openai",
            {
                "messages": [
                    says("user", "a"),
                    {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]},
                ]
            },
            "duplicate key: 'a', in tool call arguments of message 2",
        ),
        (
            "openai",
            {"messages": [says("user", "a"), says("assistant", "b")], "tools": "[" * 700 + "]" * 700},
            "nested too deeply: over 64 levels, in tools",
        ),
        (
            "preference",
            {
                "prompt": f'[{{"role": "user", "content": {HALF}}}]',
                "chosen": [says("assistant", "b")],
                "rejected": [says("assistant", "c")],
            },
            "lone surrogate: half of a \\u pair stands alone, in messages that are JSON text",
        ),
    ],
)
def test_json_text_in_a_record_is_read_as_strictly_as_the_record(name: str, record: dict, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse(name, record)
    assert str(caught.value) == reason


def test_text_that_is_json_but_no_messages_is_text() -> None:
    row = parse("prompt_only", {"prompt": '[{"a": 1, "a": 2}]'})
    assert row.text == '[{"a": 1, "a": 2}]'


def test_history_that_a_table_holds_as_json_text() -> None:
    row = parse("alpaca", {"instruction": "c", "input": "", "output": "d", "history": '[["a", "b"]]'})
    assert [message.content for message in row.messages] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "row_kind", "record"),
    [
        ("openai", "messages", {"prompt": "a", "completion": "b", "label": False}),
        ("preference", "preference", {"prompt": "a", "completion": "b", "label": False}),
        ("preference", "preference", {"messages": [says("user", "a"), says("assistant", "b")], "label": False}),
    ],
)
def test_bad_answers_are_never_called_something_to_learn(name: str, row_kind: str, record: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        check_format(name, [record], row_kind, "f")
    assert str(caught.value) == f"f: data_format: the rows are not {name}; this looks like kto; set task_type: kto"

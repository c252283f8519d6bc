"""Strategies for dialogues whose every text says whose it is, by a marker such as `own3own` for message 3."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from component.data.rows import Message

SAMPLES = (
    "hi",
    "What is 2 + 2?",
    "Übersetze 早上好 👩‍🔬 نعم, naïve ☀️",
    "def f(x):\n    return {'a': [1, 2]}[x]  # \"quoted\" \\ \\n\n",
    "<div class='a'>&amp; &lt;b&gt;</div>",
    "a\r\nb\tc\u00a0d\u2028e",
    '```json\n{"a": null}\n```',
    "1. one\n2. two\n\n\n   3. three",
    "{{ x }} {% if y %} %s %(z)s {0}",
)
SPACES = st.sampled_from(["", "", "", " ", "\n", "  \n", "\t", "\n\n "])
WORDS = st.one_of(st.sampled_from(SAMPLES), st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=20))


def text(marker: str) -> st.SearchStrategy[str]:
    """Any words around a marker that tells whose they are; no control token can stand in them."""
    return st.tuples(SPACES, WORDS, WORDS, SPACES).map(
        lambda parts: parts[0] + (f"{parts[1]} {marker} {parts[2]}").replace("|", "/") + parts[3]
    )


@st.composite
def answers(draw: st.DrawFn, index: int) -> Message:
    """An assistant message: plain, with a think block in its text, or with reasoning beside it."""
    kind = draw(st.sampled_from(["plain", "plain", "block", "field"]))
    answer = draw(text(f"own{index}own"))
    if kind == "block":
        return Message("assistant", f"<think>\n{draw(text(f'thought{index}thought')).strip()}\n</think>\n\n{answer}")
    thought = draw(text(f"thought{index}thought")) if kind == "field" else None
    return Message("assistant", answer, reasoning_content=thought)


@st.composite
def systems(draw: st.DrawFn) -> list[Message]:
    kind = draw(st.sampled_from(["none", "none", "text", "empty"]))
    return [] if kind == "none" else [Message("system", "" if kind == "empty" else draw(text("own0own")))]


@st.composite
def dialogues(draw: st.DrawFn) -> tuple[Message, ...]:
    """A system message or none, and one to six questions with their answers."""
    messages = draw(systems())
    for _ in range(draw(st.integers(1, 6))):
        messages.append(Message("user", draw(text(f"own{len(messages)}own"))))
        messages.append(draw(answers(len(messages))))
    return tuple(messages)


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": 'Its name, e.g. "Köln".'},
        "days": {"type": "integer", "description": "How many."},
        "options": {
            "type": "object",
            "description": "More.",
            "properties": {"unit": {"type": "string", "enum": ["C", "F"], "description": "The unit."}},
            "additionalProperties": {"type": "string"},
        },
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Some <tags>."},
    },
    "required": ["city"],
}
NAMES = ("get_weather", "search", "f1")
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "description": f"Does tooltool {name}.", "parameters": SCHEMA}}
    for name in NAMES
)


@st.composite
def calls(draw: st.DrawFn, number: int, marker: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {"city": draw(text(marker)).strip()}
    if draw(st.booleans()):
        arguments["days"] = draw(st.integers(0, 9))
    if draw(st.booleans()):
        arguments["options"] = {"unit": draw(st.sampled_from(["C", "F"]))}
    if draw(st.booleans()):
        arguments["tags"] = ["a", "b c"]
    function = {"name": draw(st.sampled_from(NAMES)), "arguments": arguments}
    return {"type": "function", "id": f"call{number:05}", "function": function}


@st.composite
def tool_dialogues(draw: st.DrawFn) -> tuple[Message, ...]:
    """Questions that are answered after one or two rounds of one or two calls, or at once."""
    messages = draw(systems())
    for _ in range(draw(st.integers(1, 2))):
        messages.append(Message("user", draw(text(f"own{len(messages)}own"))))
        for _ in range(draw(st.integers(0 if len(messages) > 2 else 1, 2))):
            index, num_calls = len(messages), draw(st.sampled_from([1, 1, 2]))
            made = tuple(draw(calls(index * 10 + number, f"own{index}own")) for number in range(num_calls))
            content = draw(st.one_of(st.just(""), st.just(""), text(f"said{index}said")))
            messages.append(Message("assistant", content, tool_calls=made))
            for call in made:
                result = json.dumps({"result": draw(WORDS).replace("|", "/"), "mark": f"own{len(messages)}own"})
                messages.append(Message("tool", result, tool_call_id=call["id"], name=call["function"]["name"]))
        messages.append(draw(answers(len(messages))))
    return tuple(messages)

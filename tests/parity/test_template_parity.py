"""Generated dialogues through every chat template of the test assets, with two real tokenizers, beside transformers.

A few dialogues a template by default, so that it takes a minute; `LAMPYRIS_PARITY_DIALOGUES=50` runs the full size.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from generated_dialogues import TOOLS, dialogues, tool_dialogues
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from component.data.left_out import ANSWER_CHANGED, REASONING_LEFT_OUT, text_left_out
from component.data.message_style import MessageStyle
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import Message, RowError
from component.data.templates import NAMED_TEMPLATES, is_control_token, load_chat_template
from component.pipeline.template_table import (
    equals_but_for_stop_tokens,
    own_eos,
)

pytestmark = pytest.mark.usefixtures("shared_encoders")

NUM_DIALOGUES = int(os.environ.get("LAMPYRIS_PARITY_DIALOGUES", "3"))
TOKENIZERS = ("llama3", "qwen2.5")
FOLDER = Path(os.environ.get("LAMPYRIS_TEST_ASSETS", Path(__file__).parents[3] / "shared")) / "chat_templates"
PAGE = Path(__file__).parents[2] / "docs" / "templates.md"
FILES = sorted(FOLDER.glob("*.jinja"))
EVERY_TEMPLATE = pytest.mark.parametrize("file", FILES or [None], ids=lambda file: file.stem if file else "no assets")

#: Templates that want messages otherwise than most; all others take them as they are.
STYLES = {
    "LFM2.5-8B-A1B": MessageStyle(thought_key="thinking"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": MessageStyle(arguments_as_text=True, null_content=True),
    "meetkai-functionary-medium-v3.2": MessageStyle(arguments_as_text=True),
    "openai-gpt-oss-120b": MessageStyle(thought_key="thinking"),
    "unsloth-Apriel-1.5": MessageStyle(thought_key="thought"),
}


def has_system(messages: Sequence[Message]) -> bool:
    return messages[0].role == "system"


def calls_in_parallel(messages: Sequence[Message]) -> bool:
    return any(len(message.tool_calls) > 1 for message in messages)


def speaks_and_calls(messages: Sequence[Message]) -> bool:
    return any(message.tool_calls and message.content for message in messages)


def calls_again(messages: Sequence[Message]) -> bool:
    return sum(bool(message.tool_calls) for message in messages) > 1


#: What these templates cannot show: dialogues for which this holds are refused, for one of these reasons; no others.
LEAVES_OUT = "the chat template leaves out a tool call of message"
SINGLE_CALLS = (calls_in_parallel, "refused by the chat template: This model only supports single tool-calls at once!")
NO_SECOND_ROUND = (calls_again, "answer not provable: message .* does not begin where the generation prompt ends")
REFUSALS = {
    "google-gemma-2-2b-it": [(has_system, "refused by the chat template: System role not supported")],
    "meta-llama-Llama-3.1-8B-Instruct": [SINGLE_CALLS],
    "meta-llama-Llama-3.2-3B-Instruct": [SINGLE_CALLS],
    "meta-llama-Llama-3.3-70B-Instruct": [SINGLE_CALLS],
    "GigaChat3-10B-A1.8B": [(calls_in_parallel, LEAVES_OUT)],
    "GigaChat3.1-10B-A1.8B": [(calls_in_parallel, LEAVES_OUT)],
    "openai-gpt-oss-120b": [(calls_in_parallel, LEAVES_OUT)],
    "llama-cpp-deepseek-r1": [(speaks_and_calls, LEAVES_OUT)],
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": [(speaks_and_calls, LEAVES_OUT), NO_SECOND_ROUND],
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": [NO_SECOND_ROUND],
}
#: Without a place for tool calls, or refused by transformers too; docs/templates.md says which is which.
TAKES_NO_CALLS = {
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "LFM2-8B-A1B",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "llama-cpp-rwkv-world",
}


class Comparison:
    """One template with one tokenizer and the settings that docs/templates.md names, beside transformers.

    Args:
        file: the template.
        tokenizer: with the EOS token that the template needs.
        uses_calls: whether dialogues call tools.
    """

    def __init__(self, file: Path, tokenizer: PreTrainedTokenizerBase, *, uses_calls: bool) -> None:
        cell = outcome_on_page(file.stem, tokenizer, uses_calls=uses_calls)
        self.is_possible, self.appends = cell.startswith("equal"), "`append_stop_token`" in cell
        self.tokenizer, self.name = tokenizer, file.stem
        self.tools = TOOLS if (uses_calls and "without tools" not in cell) or "with tools" in cell else ()
        self.kwargs = json.loads(found.group()) if (found := re.search(r"\{.*\}", cell)) else {}
        self.renderer = Renderer(
            tokenizer,
            load_chat_template(str(file), tokenizer),
            template_kwargs=self.kwargs,
            options=RenderOptions(append_stop_token=self.appends),
        )

    def reference(self, messages: Sequence[Message], **options: Any) -> Any:
        """What transformers makes of the messages; raises as it does."""
        style = STYLES.get(self.name, MessageStyle())
        return self.tokenizer.apply_chat_template(
            [style.write(message) for message in messages],
            tools=[dict(tool) for tool in self.tools] or None,
            chat_template=self.renderer.template.source,
            **{"return_dict": False, **self.kwargs, **options},
        )

    def check(self, messages: tuple[Message, ...]) -> None:
        expected = [reason for holds, reason in REFUSALS.get(self.name, []) if holds(messages)]
        try:
            rendered = self.renderer.render(messages, self.tools)
        except RowError as error:
            assert any(re.match(reason, str(error)) for reason in expected), error
            if str(error).startswith("refused by the chat template"):
                with pytest.raises(jinja2.TemplateError):
                    self.reference(messages)
            return
        assert not expected
        ids, token_spans = self.renderer.encode(messages, self.tools)
        if self.appends:
            reference = self.reference(messages, tokenize=False)
            assert equals_but_for_stop_tokens(rendered, reference, self.tokenizer.eos_token)
            assert list(ids) == self.tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
        else:
            assert list(ids) == self.reference(messages)
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        assert len(rendered.spans) == len(token_spans) == len(answers)
        for index, span in zip(answers, rendered.spans, strict=True):
            self.check_answer(rendered.text, span, messages, index, rendered.notices)
        self.check_tokens(rendered.text, ids, token_spans)
        self.check_others(rendered.text, rendered.spans, messages, rendered.notices)

    def check_answer(
        self,
        text: str,
        span: tuple[int, int],
        messages: tuple[Message, ...],
        index: int,
        notices: tuple[str, ...],
    ) -> None:
        """The span begins where the prompt ends, holds what the message says, and ends in a terminator."""
        start, end = span
        learned, message = text[start:end], messages[index]
        assert set(re.findall(r"own(\d+)own", learned)) == {str(index)}
        assert text.count(f"own{index}own") == learned.count(f"own{index}own")
        for marker in (f"thought{index}thought", f"said{index}said"):
            assert text.count(marker) == learned.count(marker)
        says = message.content.rpartition("</think>")[2].strip()
        assert says in learned or ANSWER_CHANGED in notices
        thought = message.reasoning_content is not None or "</think>" in message.content
        assert not thought or f"thought{index}thought" in learned or REASONING_LEFT_OUT in notices
        stops = (*self.renderer.terminators, *self.renderer.call_terminators)
        assert learned.rstrip().endswith((*stops, self.tokenizer.eos_token) if self.appends else stops)
        if has_generation_blocks(self.renderer.template.source):
            return
        prompt = self.reference(messages[:index], tokenize=False, add_generation_prompt=True)
        if text.startswith(prompt):
            assert start == len(prompt)

    def check_tokens(self, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> None:
        """The tokens of the spans are their text's, and hold a stop token where the tokenizer knows the terminator."""
        stops = (*self.renderer.terminators, *self.renderer.call_terminators)
        are_tokens = all(is_control_token(stop, self.tokenizer) for stop in stops)
        pieces, position = [], 0
        for first, last in spans:
            assert not are_tokens or not set(self.renderer.stop_token_ids).isdisjoint(ids[last - 2 : last])
            pieces += (self.tokenizer.decode(ids[position:first]), self.tokenizer.decode(ids[first:last]))
            position = last
        normalizer = self.tokenizer.backend_tokenizer.normalizer  # Qwen's brings text into NFC
        whole = normalizer.normalize_str(text) if normalizer else text
        assert "".join((*pieces, self.tokenizer.decode(ids[position:]))) == whole

    def check_others(
        self, text: str, spans: Sequence[tuple[int, int]], messages: Sequence[Message], notices: tuple[str, ...]
    ) -> None:
        """What others say stands outside of the spans, or is told to be left out."""
        learned = "".join(text[start:end] for start, end in spans)
        assert "tooltool" not in learned
        assert not self.tools or text.count("tooltool") >= len(self.tools)
        for index, message in enumerate(messages):
            if message.role != "assistant" and message.content:
                assert f"own{index}own" in text or text_left_out(message.role) in notices
                assert f"own{index}own" not in learned


def outcome_on_page(name: str, tokenizer: PreTrainedTokenizerBase, *, uses_calls: bool) -> str:
    """What docs/templates.md says of a template; its columns are a kind of conversation with each tokenizer."""
    [row] = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(rf"\| {re.escape(name)} \| (eq|ref)", line)
    ]
    return row.split(" | ")[1 + 2 * TOKENIZERS.index(Path(tokenizer.name_or_path).name) + uses_calls]


def has_generation_blocks(source: str) -> bool:
    return re.search(r"\{%-?\s*generation", source) is not None


def for_all(dialogue: st.SearchStrategy[tuple[Message, ...]], num_dialogues: int) -> Any:
    """Run a check on generated dialogues: the same ones each time, and none remembered."""
    run = settings(
        max_examples=num_dialogues,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # a failure shows the dialogue; making it smaller takes minutes
        suppress_health_check=list(HealthCheck),
    )
    return lambda check: run(given(dialogue)(check))()


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest, real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    return real_tokenizer(request.param)


@EVERY_TEMPLATE
def test_conversations(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with own_eos(file.stem, tokenizer):
        comparison = Comparison(file, tokenizer, uses_calls=False)
        assert comparison.is_possible
        assert comparison.renderer.style == STYLES.get(file.stem, MessageStyle())
        for_all(dialogues(), NUM_DIALOGUES)(comparison.check)


@EVERY_TEMPLATE
def test_conversations_with_tools(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with own_eos(file.stem, tokenizer):
        comparison = Comparison(file, tokenizer, uses_calls=True)
        assert comparison.is_possible == (file.stem not in TAKES_NO_CALLS)
        if comparison.is_possible:
            for_all(tool_dialogues(), NUM_DIALOGUES)(comparison.check)


MARKED = [file for file in FILES if has_generation_blocks(file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("file", MARKED or [None], ids=lambda file: file.stem if file else "no assets")
@pytest.mark.parametrize("uses_calls", [False, True], ids=["plain", "calls"])
def test_masks_where_the_template_marks_what_is_generated(
    file: Path, tokenizer: PreTrainedTokenizerBase, uses_calls: bool
) -> None:
    comparison = Comparison(file, tokenizer, uses_calls=uses_calls)

    def check(messages: tuple[Message, ...]) -> None:
        reference = comparison.reference(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, spans = comparison.renderer.encode(messages, comparison.tools)
        mask = [int(any(first <= token < last for first, last in spans)) for token in range(len(ids))]
        assert (list(ids), mask) == (reference["input_ids"], reference["assistant_masks"])

    for_all(tool_dialogues() if uses_calls else dialogues(), NUM_DIALOGUES)(check)


NAMED_WITH_TOOLS = {"llama3.1": "meta-llama-Llama-3.1-8B-Instruct", "qwen3": "Qwen-Qwen3-0.6B"}


@pytest.mark.parametrize("name", NAMED_WITH_TOOLS)
@pytest.mark.parametrize("uses_calls", [False, True], ids=["plain", "calls"])
def test_named_templates_are_the_official_ones_with_tools_too(
    name: str, tokenizer: PreTrainedTokenizerBase, uses_calls: bool
) -> None:
    official = (FOLDER / f"{NAMED_WITH_TOOLS[name]}.jinja").read_text(encoding="utf-8")
    stop = NAMED_TEMPLATES[name]
    knowing = SimpleNamespace(added_tokens_decoder={0: SimpleNamespace(content=stop)}, eos_token=stop)
    ours = load_chat_template(name, knowing).source
    tools = [dict(tool) for tool in TOOLS] if uses_calls else None

    def written(source: str, messages: Sequence[Message], is_prompt: bool) -> str | None:
        try:
            return tokenizer.apply_chat_template(
                [message.as_template_message() for message in messages],
                tools=tools,
                chat_template=source,
                tokenize=False,
                add_generation_prompt=is_prompt,
                bos_token="<s>",
            )
        except jinja2.TemplateError:
            return None

    def check(messages: tuple[Message, ...]) -> None:
        for shown, is_prompt in ((messages, False), (messages[:-1], True)):
            assert written(ours, shown, is_prompt) == written(official, shown, is_prompt)
        is_refused = name == "llama3.1" and calls_in_parallel(messages)
        assert (written(ours, messages, False) is None) == is_refused

    for_all(tool_dialogues() if uses_calls else dialogues(), max(NUM_DIALOGUES, 20))(check)


def test_all_templates_are_there(test_assets: Path) -> None:
    assert (len(FILES), len(MARKED)) == (54, 4)

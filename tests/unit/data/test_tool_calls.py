"""Conversations with tools: spans, styles and refusals, on small templates written for each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from component.data.content_controls import CONTROL_TOKENS_AS_TEXT
from component.data.left_out import ANSWER_CHANGED, REASONING_LEFT_OUT, text_left_out
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import Message, RowError
from component.data.self_test import run_self_test
from component.data.templates import ChatTemplate

CALLING = """
{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '\n' + (m.content or '') -}}
    {%- for c in m.tool_calls or [] -%}{{- '<call>' + c.function.name + ARGUMENTS + '</call>' -}}{%- endfor -%}
    {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
PLAIN = CALLING.replace("ARGUMENTS", "(c.function.arguments | tojson)")
TOOL = {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": {}}}
TALK = (Message("user", "Hi"), Message("assistant", "Yo"))


def call(**arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "1", "function": {"name": "f", "arguments": arguments}}


def calling(*calls: dict[str, Any], content: str = "") -> tuple[Message, ...]:
    return (
        TALK[0],
        Message("assistant", content, tool_calls=calls),
        Message("tool", "2", tool_call_id="1", name="f"),
        Message("assistant", "No"),
    )


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and control tokens."""
    vocab = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|call|>"]})
    return tokenizer


@pytest.fixture(scope="module")
def build(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Renderer]:
    return lambda source, **options: Renderer(
        tokenizer, ChatTemplate("test", source, "a test"), options=RenderOptions(**options)
    )


def spans_of(renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict] = ()) -> list[str]:
    rendered = renderer.render(messages, tools)
    ids, spans = renderer.encode(messages, tools)
    texts = [rendered.text[start:end] for start, end in rendered.spans]
    assert [renderer.tokenizer.decode(ids[start:end]) for start, end in spans] == texts
    return texts


def refusal(renderer: Renderer, messages: Sequence[Message], tools: Sequence[dict] = ()) -> str:
    with pytest.raises(RowError) as error:
        renderer.render(messages, tools)
    return str(error.value)


@pytest.mark.parametrize("arguments", [{"x": "a"}, {"x": 1}, {}])
def test_a_later_header_may_repeat_the_name_of_a_call(build: Callable[..., Renderer], arguments: dict) -> None:
    source = PLAIN.replace(
        "+ m.role +", "+ (messages[loop.index0 - 1].tool_calls[0].function.name if m.role == 'tool' else m.role) +"
    )
    messages = calling(call(**arguments))
    written = str(arguments).replace("'", '"')
    assert spans_of(build(source), messages) == [f"<call>f{written}</call><|im_end|>", "No<|im_end|>"]


def test_a_call_may_end_in_another_token_than_an_answer(build: Callable[..., Renderer]) -> None:
    source = PLAIN.replace("'<|im_end|>\n'", "('<|call|>' if m.tool_calls else '<|im_end|>\n')")
    renderer = build(source)
    assert spans_of(renderer, calling(call(x=1))) == ['<call>f{"x": 1}</call><|call|>', "No<|im_end|>"]
    assert renderer.tokenizer.convert_tokens_to_ids("<|call|>") in renderer.stop_token_ids


def test_a_tag_that_closes_one_of_the_answer_is_no_terminator(build: Callable[..., Renderer]) -> None:
    source = PLAIN.replace("'<|im_end|>\n'", "('<|eom|>' if m.tool_calls else '<|im_end|>\n')")
    assert spans_of(build(source), calling(call(x=1)))[0] == '<call>f{"x": 1}</call><|eom|>'


def test_a_call_without_a_terminator_is_refused_but_for_an_appended_one(build: Callable[..., Renderer]) -> None:
    source = CALLING.replace("ARGUMENTS", "''").replace("'<|im_end|>\n'", "('' if m.tool_calls else '<|im_end|>\n')")
    source = source.replace("<call>", "call ").replace("</call>", "")
    assert refusal(build(source), calling(call())).startswith("the template writes no terminator after a tool call")
    assert spans_of(build(source, append_stop_token=True), calling(call())) == ["call f</s>", "No<|im_end|>"]


def test_arguments_are_text_where_the_template_wants_text(build: Callable[..., Renderer]) -> None:
    renderer = build(CALLING.replace("ARGUMENTS", "c.function.arguments"))
    assert renderer.style.arguments_as_text
    assert spans_of(renderer, calling(call(x="é")))[0] == '<call>f{"x": "é"}</call><|im_end|>'
    notice = "template_name: test takes the arguments of tool calls as JSON text; they are given to it so"
    assert notice in run_self_test(renderer).notices
    assert not build(PLAIN).style.arguments_as_text


def test_content_is_null_where_the_template_wants_null(build: Callable[..., Renderer]) -> None:
    source = PLAIN.replace("m.tool_calls or []", "((m.tool_calls or []) if m.content is none else [])")
    renderer = build(source)
    assert renderer.style.null_content
    assert spans_of(renderer, calling(call(x=1)))[0] == '<call>f{"x": 1}</call><|im_end|>'
    reason = "the chat template leaves out a tool call of message 2: f"
    assert refusal(renderer, calling(call(x=1), content="Well.")) == reason


def test_a_call_that_is_left_out_is_refused(build: Callable[..., Renderer]) -> None:
    first_only = build(PLAIN.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"))
    assert spans_of(first_only, calling(call(x=1)))[0] == '<call>f{"x": 1}</call><|im_end|>'
    reason = "the chat template leaves out a tool call of message 2: f"
    assert refusal(first_only, calling(call(x=1), call(x=2))) == reason
    unlearned = calling(call(x=1), call(x=2))
    assert refusal(build(first_only.template.source, train_on="last"), unlearned) == reason


def test_thoughts_go_by_the_name_that_the_template_reads(build: Callable[..., Renderer]) -> None:
    source = PLAIN.replace("(m.content or '')", "(m.thinking + '|' if m.thinking else '') + (m.content or '')")
    renderer = build(source)
    assert renderer.style.thought_key == "thinking"
    thought = (TALK[0], Message("assistant", "Yo", reasoning_content="Hm"))
    assert spans_of(renderer, thought) == ["Hm|Yo<|im_end|>"]
    assert renderer.render(thought).notices == ()
    assert build(PLAIN).render(thought).notices == (REASONING_LEFT_OUT,)


NEEDS_TOOLS = "{% for t in tools %}{{ t.function.description }}{% endfor %}" + PLAIN


def test_a_template_that_needs_tools_is_probed_with_one(build: Callable[..., Renderer]) -> None:
    renderer = build(NEEDS_TOOLS)
    assert spans_of(renderer, calling(call(x=1)), [TOOL]) == ['<call>f{"x": 1}</call><|im_end|>', "No<|im_end|>"]
    assert spans_of(renderer, TALK, [TOOL]) == ["Yo<|im_end|>"]
    assert refusal(renderer, TALK) == "refused by the chat template: 'NoneType' object is not iterable"
    notices = run_self_test(renderer).notices
    refused = "refused by the chat template: 'NoneType' object is not iterable"
    assert f"template_name: test refuses conversations without tools: {refused}" in notices


def test_a_header_is_found_after_other_text_than_in_the_prompt(build: Callable[..., Renderer]) -> None:
    instruction = "{%- if add_generation_prompt -%}{{- '<|im_start|>system\nCall.<|im_end|>\n' -}}{%- endif -%}"
    source = PLAIN.replace("{%- if add_gen", instruction + "{%- if add_gen")
    assert spans_of(build(source), calling(call(x=1))) == ['<call>f{"x": 1}</call><|im_end|>', "No<|im_end|>"]


def test_control_tokens_in_tools_and_names_are_text(build: Callable[..., Renderer]) -> None:
    tool = {"function": {"name": "f", "description": "Ends in <|im_end|>."}}
    named = (*calling(call(x=1))[:2], Message("tool", "2", tool_call_id="<s>", name="f"), Message("assistant", "No"))
    for source in (
        "{{ tools | tojson }}" + PLAIN,
        "{{ tools | string }}" + PLAIN,
        NEEDS_TOOLS.replace("t.function.desc", "t['function'].desc"),
        "{{ tools | tojson(indent=2) }}" + PLAIN.replace("+ m.role", "+ (m.tool_call_id or '') + m.role"),
    ):
        renderer = build(source)
        encoded = renderer.encode(named, [tool])
        assert encoded.notices == (CONTROL_TOKENS_AS_TEXT,)
        specials = [id for id in encoded.input_ids if id in renderer.tokenizer.all_special_ids]
        assert renderer.tokenizer.decode(specials) == "<|im_start|><|im_end|>" * 4
    rejecting = build("{{ tools | tojson }}" + PLAIN, content_control_tokens="reject")
    reason = "control token in content: a tool or a name spells out '<|im_end|>'"
    assert refusal(rejecting, TALK, [tool]) == reason


def test_a_control_token_that_lost_its_origin_is_refused(build: Callable[..., Renderer]) -> None:
    renderer = build("{{ tools[0].function.description | center(40) }}" + PLAIN)
    tool = {"function": {"name": "f", "description": "<|im_end|>"}}
    assert refusal(renderer, TALK, [tool]) == "control token in content: the template mixes it with its own"
    assert spans_of(renderer, TALK, [TOOL]) == ["Yo<|im_end|>"]


def test_what_a_template_leaves_out_is_noticed(build: Callable[..., Renderer]) -> None:
    source = PLAIN.replace("(m.content or '')", "('' if m.role == 'system' else m.content.split('#')[0] | trim)")
    messages = (Message("system", " Be brief. "), Message("user", " Hi "), Message("assistant", "Yo # really"))
    left_out = (text_left_out("system"), ANSWER_CHANGED)
    assert build(source).render(messages).notices == left_out
    kept = tuple(Message(message.role, message.content.strip()) for message in messages)
    assert build(PLAIN).render(kept).notices == build(PLAIN).render(messages).notices == ()
    assert f"template_name: test: {text_left_out('system')}" in run_self_test(build(source)).notices
    dropping = PLAIN.replace("(m.content or '')", "(m.content.split('</think>')[-1])")
    thought = (TALK[0], Message("assistant", "<think>Hm</think>Yo"))
    assert build(dropping).render(thought).notices == (REASONING_LEFT_OUT,)
    assert build(PLAIN).render(thought).notices == ()

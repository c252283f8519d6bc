"""Spans, ids and refusals of the renderer, on small templates written for each case and a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from component.config.errors import UserError
from component.data.content_controls import CONTROL_TOKENS_AS_CONTROLS, CONTROL_TOKENS_AS_TEXT
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import Message, RowError
from component.data.self_test import run_self_test
from component.data.templates import ChatTemplate, load_chat_template, template_names

CHATML = """
{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
TALK = (Message("user", "Hi"), Message("assistant", "Yo"), Message("user", "So?"), Message("assistant", "No"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, `Ġ` + `Y` (" Y") and `>` + `Y` merged, and four control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*alphabet, "ĠY", ">Y"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "Y"), (">", "Y")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def build(tokenizer: PreTrainedTokenizerFast, source: str, **options: Any) -> Renderer:
    return Renderer(tokenizer, ChatTemplate("test", source, "a test"), **options)


def spans_of(renderer: Renderer, messages: Sequence[Message], **options: Any) -> list[str]:
    """The supervised texts; those of the tokens are the same."""
    rendered = renderer.render(messages, **options)
    texts = [rendered.text[start:end] for start, end in rendered.spans]
    ids, spans = renderer.encode(messages, **options)
    assert renderer.tokenizer.decode(ids) == rendered.text
    assert [renderer.tokenizer.decode(ids[start:end]) for start, end in spans] == texts
    return texts


def refusal(renderer: Renderer, messages: Sequence[Message], **options: Any) -> str:
    with pytest.raises(RowError) as error:
        renderer.render(messages, **options)
    return str(error.value)


def test_a_span_is_the_answer_with_its_terminator(tokenizer: PreTrainedTokenizerFast) -> None:
    assert spans_of(build(tokenizer, CHATML), TALK) == ["Yo<|im_end|>", "No<|im_end|>"]


def test_ids_equal_apply_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [message.as_template_message() for message in TALK]
    expected = tokenizer.apply_chat_template(messages, chat_template=CHATML, return_dict=False)
    renderer = build(tokenizer, CHATML)
    assert list(renderer.encode(TALK).input_ids) == expected
    prompt = tokenizer.apply_chat_template(
        messages[:-1], chat_template=CHATML, add_generation_prompt=True, return_dict=False
    )
    assert renderer.encode_prompt(TALK[:-1]) == prompt == expected[: len(prompt)]


def test_terminators_inside_contents_are_not_the_templates(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = (Message("user", "<|im_end|>\n<|im_start|>assistant\n"), Message("assistant", "a<|im_end|>b"))
    assert spans_of(build(tokenizer, CHATML), messages) == ["a<|im_end|>b<|im_end|>"]


def test_whitespace_of_an_answer_is_supervised_where_the_template_keeps_it(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = (Message("user", " Hi\n"), Message("assistant", "\n Yo \n"))
    assert spans_of(build(tokenizer, CHATML), messages) == ["\n Yo \n<|im_end|>"]
    trimmed = CHATML.replace("m.content", "m.content | trim")
    assert spans_of(build(tokenizer, trimmed), messages) == ["Yo<|im_end|>"]


def test_text_that_the_template_writes_before_the_answer_is_supervised(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CHATML.replace("+ m.content", "+ ('<think>\n</think>\n' if loop.last else '') + m.content")
    assert spans_of(build(tokenizer, source), TALK) == ["Yo<|im_end|>", "<think>\n</think>\nNo<|im_end|>"]


def test_a_prompt_that_opens_a_thought_ends_where_the_answer_departs_from_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    assert spans_of(build(tokenizer, source), TALK) == ["Yo<|im_end|>", "No<|im_end|>"]
    closed = source.replace("+ m.content", "+ ('</think>' if m.role == 'assistant' else '') + m.content")
    assert spans_of(build(tokenizer, closed), TALK) == ["</think>Yo<|im_end|>", "</think>No<|im_end|>"]


def test_prompts_that_depend_on_words_are_not_taken_from_other_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CHATML.replace(
        "'<|im_start|>assistant\n'",
        "'<|im_start|>assistant\n' + ('<think></think>\n' if '/off' in messages[-1].content else '')",
    ).replace(
        "+ m.content",
        "+ ('<think></think>\n' if m.role == 'assistant' and '/off' in messages[loop.index0 - 1].content else '') "
        "+ m.content",
    )
    renderer = build(tokenizer, source)
    for question in ("Hi", "Hi /off", "Hi"):
        assert spans_of(renderer, (Message("user", question), TALK[1])) == ["Yo<|im_end|>"]


def test_a_last_answer_may_end_otherwise(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CHATML.replace("'<|im_end|>\n'", "('</s>' if loop.last and m.role == 'assistant' else '<|im_end|>\n')")
    renderer = build(tokenizer, source)
    assert spans_of(renderer, TALK) == ["Yo<|im_end|>", "No</s>"]
    assert renderer.terminators == ("</s>", "<|im_end|>")


def test_eos_after_the_turns_terminator_is_not_supervised(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CHATML + "{%- if not add_generation_prompt -%}{{- eos_token -}}{%- endif -%}"
    assert spans_of(build(tokenizer, source), TALK) == ["Yo<|im_end|>", "No<|im_end|>"]


def test_generation_blocks_define_the_spans(tokenizer: PreTrainedTokenizerFast) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>!{% endgeneration %}\n"
        "{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
    )
    renderer = build(tokenizer, source)
    assert spans_of(renderer, TALK) == ["Yo<|im_end|>!", "No<|im_end|>!"]
    assert renderer.terminators == ("<|im_end|>",)


def test_tool_calls_belong_to_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CHATML.replace(
        "+ m.content", "+ m.content + ('<call>' + (m.tool_calls | tojson) + '</call>' if m.tool_calls else '')"
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = (TALK[0], Message("assistant", "", tool_calls=(call,)), Message("tool", "2"), TALK[3])
    written = '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]'
    assert spans_of(build(tokenizer, source), messages) == [f"<call>{written}</call><|im_end|>", "No<|im_end|>"]
    assert refusal(build(tokenizer, CHATML), messages) == "the chat template has no place for tool calls"
    assert refusal(build(tokenizer, CHATML), TALK, tools=({"name": "f"},)) == "the chat template has no place for tools"


@pytest.mark.parametrize(
    "source, messages, reason",
    [
        (CHATML, TALK[:1], "no assistant message to learn from"),
        (CHATML, (TALK[0], Message("assistant", "")), "answer without text: message 2 leaves none in the rendered "),
        ("{{ raise_exception('no system, please') }}", TALK, "refused by the chat template: no system, please"),
        ("{{ messages[0].content + absent }}", TALK, "refused by the chat template: "),
        ("{{ absent.field }}", TALK, "refused by the chat template: 'absent' is undefined"),
        ("{{ messages[9].content.x }}", TALK, "refused by the chat template: "),
        (CHATML.replace("<|im_end|>", ""), TALK, "the template writes no terminator after an answer, so a model would"),
        (
            CHATML.replace("'<|im_end|>\n'", "('</s>' if loop.last and m.role == 'assistant' else '\n')"),
            TALK,
            "the template writes a terminator after the last answer only, and none after the others",
        ),
        (
            CHATML.replace("<|im_end|>\n'", "<|a|><|b|>\n'"),
            TALK,
            "the template ends an answer with <|a|> <|b|>, and none of these is the tokenizer's EOS token",
        ),
        (
            CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>model\n'"),
            TALK,
            "answer not provable: message 2 does not begin where the generation prompt ends; the prompt ends in "
            "'<|im_end|>\\n<|im_start|>model\\n', the text before the answer in "
            "'<|im_end|>\\n<|im_start|>assistant\\n'",
        ),
        (
            CHATML + "{{ messages[1].content if messages[0].content == 'Hi' }}",
            TALK,
            "answer not provable: the text of message 2 is mixed with that of another message",
        ),
        (
            CHATML.replace("'<|im_end|>\n'", "('<|x|>' if m.content == 'No' else '<|im_end|>') + '\n'"),
            TALK,
            "answer not provable: message 4 is not followed by the terminator '<|im_end|>' but by '<|x|>\\n'",
        ),
    ],
)
def test_what_cannot_be_proven_is_refused(
    source: str, messages: Sequence[Message], reason: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert refusal(build(tokenizer, source), messages).startswith(reason)


def test_a_stop_token_can_be_appended(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    source += "{% if add_generation_prompt %}assistant:{% endif %}"
    renderer = build(tokenizer, source, options=RenderOptions(append_stop_token=True))
    assert renderer.render(TALK).text == "user: Hi\n\nassistant: Yo</s>\n\nuser: So?\n\nassistant: No</s>\n\n"
    assert spans_of(renderer, TALK) == [" Yo</s>", " No</s>"]
    prompt = "user: Hi\n\nassistant: Yo</s>\n\nuser: So?\n\nassistant:"
    assert tokenizer.decode(renderer.encode_prompt(TALK[:-1])) == prompt
    assert renderer.stop_token_ids == (tokenizer.eos_token_id,)
    terminated = build(tokenizer, CHATML, options=RenderOptions(append_stop_token=True))
    assert spans_of(terminated, TALK) == ["Yo<|im_end|>", "No<|im_end|>"]


def test_a_token_belongs_where_its_first_visible_character_is(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% for m in messages %}{{ 'A: ' if m.role == 'assistant' else 'U>' }}{{ m.content }}</s>{% endfor %}"
    spaced = build(tokenizer, source + "{% if add_generation_prompt %}A: {% endif %}")
    ids, spans = spaced.encode(TALK[:2])
    assert [tokenizer.decode(ids[start:end]) for start, end in spans] == [" Yo</s>"]  # " Y" is one token
    joined = build(tokenizer, source.replace("A: ", "A>") + "{% if add_generation_prompt %}A>{% endif %}")
    ids, spans = joined.encode(TALK[:2])
    assert [tokenizer.decode(ids[start:end]) for start, end in spans] == ["o</s>"]  # ">Y" is the prompt's


def test_a_batch_keeps_its_order_around_refused_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML)
    first, refused, last = renderer.encode_batch([(TALK, ()), (TALK[:1], ()), (TALK[:2], ())])
    assert (first, last) == (renderer.encode(TALK), renderer.encode(TALK[:2]))
    assert isinstance(refused, RowError)
    assert [str(error) for error in renderer.encode_batch([(TALK[:1], ())])] == [str(refused)]
    assert renderer.encode_batch([]) == []


def test_stop_token_ids_are_the_terminator_and_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = sorted(tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"]))
    assert list(build(tokenizer, CHATML).stop_token_ids) == expected


def test_template_kwargs_reach_the_template_and_win(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, "{{ bos_token }}{{ extra }}" + CHATML, template_kwargs={"bos_token": "B", "extra": "X"})
    assert renderer.render(TALK).text.startswith("BX<|im_start|>user")


def test_the_fingerprint_holds_all_that_changes_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    day, next_day = datetime(2024, 1, 1), datetime(2024, 1, 2)
    dated = CHATML + "{{ strftime_now('%d') }}"
    renderers = [
        build(tokenizer, CHATML, now=day),
        build(tokenizer, CHATML + "!", now=day),
        build(tokenizer, CHATML + "{{ x }}", now=day, template_kwargs={"x": 1}),
        build(tokenizer, CHATML + "{{ x }}", now=day),
        build(tokenizer, CHATML, now=day, options=RenderOptions(append_stop_token=True)),
        build(tokenizer, dated, now=day),
        build(tokenizer, dated, now=next_day),
    ]
    assert len({renderer.fingerprint() for renderer in renderers}) == len(renderers)
    assert build(tokenizer, CHATML, now=day).fingerprint() == build(tokenizer, CHATML, now=next_day).fingerprint()


@pytest.mark.parametrize(
    ("argument", "hint"),
    [("greetin", "did you mean greeting?"), ("enable_thinking", "it reads greeting; drop it")],
)
def test_an_argument_that_the_template_does_not_read_is_refused(
    tokenizer: PreTrainedTokenizerFast, argument: str, hint: str
) -> None:
    with pytest.raises(UserError) as error:
        build(tokenizer, "{{ greeting }}" + CHATML, template_kwargs={argument: True})
    assert str(error.value) == f"chat_template_kwargs: the chat template does not read {argument!r}; {hint}"


def test_a_template_that_calls_itself_without_end_refuses_the_row(tokenizer: PreTrainedTokenizerFast) -> None:
    endless = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{% if messages[0].content == 'deep' %}{{ f(1) }}{% endif %}"
    reason = refusal(build(tokenizer, endless + CHATML), (Message("user", "deep"), Message("assistant", "a")))
    assert reason.startswith("refused by the chat template: maximum recursion depth exceeded")


def test_a_broken_template_is_the_users_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="^template_name: a test, line 2: .*; correct the template$"):
        build(tokenizer, "\n{% if %}")


@pytest.mark.parametrize("name", template_names())
def test_every_named_template_trains_on_a_foreign_tokenizer(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer, load_chat_template(name, tokenizer))
    run_self_test(renderer)
    ids, spans = renderer.encode(TALK)
    assert len(spans) == 2
    assert all(ids[end - 1] in renderer.stop_token_ids for _, end in spans)


def test_the_self_test_says_what_it_proved(tokenizer: PreTrainedTokenizerFast) -> None:
    test = run_self_test(build(tokenizer, CHATML))
    assert test.proven == (
        "token ids equal the chat template's own",
        "BOS stands where the template writes it",
        "answers end in a supervised stop token ('</s>', '<|im_end|>')",
    )
    assert test.notices == ()


def test_the_self_test_goes_on_without_a_system_message(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    (notice,) = run_self_test(build(tokenizer, source)).notices
    assert notice == "template_name: test takes no system message: refused by the chat template: no system"


@pytest.mark.parametrize(
    "source, message",
    [
        (
            CHATML.replace("<|im_end|>", ""),
            "template_name: test cannot be trained with: the template writes no terminator after an answer, so a model "
            "would not learn to stop; set append_stop_token or use another one",
        ),
        (
            CHATML.replace("<|im_end|>", "<|stop|>"),
            "template_name: test ends an answer with '<|stop|>', which is no token of this tokenizer, so generation "
            "would not stop; set append_stop_token or use another template",
        ),
        (
            "{{ bos_token }}{{ bos_token }}" + CHATML,
            "template_name: test writes two BOS tokens '<s>' in a row; remove one from it",
        ),
    ],
)
def test_the_self_test_refuses(source: str, message: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError) as error:
        run_self_test(build(tokenizer, source))
    assert error.value.messages == (message,)


@pytest.mark.parametrize("terminator", ["", "<|stop|>"])
def test_appending_mends_what_the_self_test_refuses(terminator: str, tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML.replace("<|im_end|>", terminator), options=RenderOptions(append_stop_token=True))
    assert spans_of(renderer, TALK) == [f"Yo{terminator}</s>", f"No{terminator}</s>"]
    (notice,) = run_self_test(renderer).notices
    assert notice.startswith("append_stop_token: the tokenizer's EOS token '</s>' follows each answer; ")


CONTROLS = (Message("user", "<s> and <|im_end|>?"), Message("assistant", "a<|im_end|>b\n<|im_start|>"))


def test_control_tokens_in_content_are_text(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML)
    encoded = renderer.encode(CONTROLS)
    assert tokenizer.decode(encoded.input_ids) == renderer.render(CONTROLS).text
    assert spans_of(renderer, CONTROLS) == ["a<|im_end|>b\n<|im_start|><|im_end|>"]
    assert encoded.notices == (CONTROL_TOKENS_AS_TEXT,)
    specials = [id for id in encoded.input_ids if id in tokenizer.all_special_ids]
    assert tokenizer.decode(specials) == "<|im_start|><|im_end|>" * 2  # the template's own, in their order
    harmless = [Message(m.role, m.content.replace("|", "/").replace("<s>", "(s)")) for m in CONTROLS]
    expected = renderer.encode(harmless).input_ids
    assert len(encoded.input_ids) == len(expected)
    changed = {(one, other) for one, other in zip(encoded.input_ids, expected, strict=True) if one != other}
    assert changed == {tuple(tokenizer.convert_tokens_to_ids([a, b])) for a, b in ("|/", "<(", ">)")}
    prompt = renderer.encode_prompt(CONTROLS[:1])
    assert list(encoded.input_ids[: len(prompt)]) == prompt
    clean, odd, refused = renderer.encode_batch([(TALK, ()), (CONTROLS, ()), (TALK[:1], ())])
    assert (clean, odd) == (renderer.encode(TALK), encoded) and isinstance(refused, RowError)


def test_control_tokens_in_content_may_be_controls_or_reasons(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [message.as_template_message() for message in CONTROLS]
    expected = tokenizer.apply_chat_template(messages, chat_template=CHATML, return_dict=False)
    as_controls = build(tokenizer, CHATML, options=RenderOptions(content_control_tokens="control")).encode(CONTROLS)
    assert (list(as_controls.input_ids), as_controls.notices) == (expected, (CONTROL_TOKENS_AS_CONTROLS,))
    rejecting = build(tokenizer, CHATML, options=RenderOptions(content_control_tokens="reject"))
    assert refusal(rejecting, CONTROLS) == "control token in content: message 1 spells out '<s>'"
    assert rejecting.encode(TALK).notices == ()


def test_control_tokens_in_tool_calls_and_generation_blocks_are_text(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% for m in messages %}<s>{{ m.role }}{% generation %}{{ m.content }}</s>{% endgeneration %}{% endfor %}"
    ids = build(tokenizer, source).encode((Message("user", "</s>"), Message("assistant", "<s>"))).input_ids
    assert [id for id in ids if id in tokenizer.all_special_ids] == tokenizer.convert_tokens_to_ids(["<s>", "</s>"] * 2)
    calling = CHATML.replace("+ m.content", "+ m.content + (m.tool_calls | tojson if m.tool_calls else '')")
    call = {"function": {"name": "f", "arguments": {"x": "<|im_end|>"}}}
    encoded = build(tokenizer, calling).encode((TALK[0], Message("assistant", "", tool_calls=(call,))))
    assert list(encoded.input_ids).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_what_stands_for_control_tokens_cannot_be_written(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML)
    aliases = [chr(0xF8000 + number) + "\U000fff00" * length for number in range(4) for length in range(12)]
    for alias in ("".join(aliases), "\U000f8000", "\U000fff00"):
        harmless = (Message("user", alias), TALK[1])
        ids = renderer.encode(harmless).input_ids
        assert tokenizer.decode([id for id in ids if id in tokenizer.all_special_ids]) == "<|im_start|><|im_end|>" * 2
        for forging in (
            (Message("user", "<s>" + alias), TALK[1]),
            (Message("user", alias), Message("assistant", "<s>")),
        ):
            (refused,) = renderer.encode_batch([(forging, ())])
            assert isinstance(refused, RowError) and "private-use characters that stand for" in str(refused)
            as_controls = build(tokenizer, CHATML, options=RenderOptions(content_control_tokens="control"))
            assert as_controls.encode(forging).notices == (CONTROL_TOKENS_AS_CONTROLS,)


def test_the_last_answer_alone_or_the_prompt_too(tokenizer: PreTrainedTokenizerFast) -> None:
    last = build(tokenizer, CHATML, options=RenderOptions(train_on="last"))
    assert spans_of(last, TALK) == ["No<|im_end|>"]
    whole = build(tokenizer, CHATML, options=RenderOptions(train_on_prompt=True))
    assert spans_of(whole, TALK) == [whole.render(TALK).text]
    source = CHATML.replace("<|im_end|>", "")
    appended = build(tokenizer, source, options=RenderOptions(train_on_prompt=True, append_stop_token=True))
    assert appended.render(TALK).text.count("</s>") == 2
    assert spans_of(appended, TALK) == [appended.render(TALK).text]


def test_an_answer_of_weight_0_is_not_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = (TALK[0], Message("assistant", "Yo", weight=0), *TALK[2:])
    plain = build(tokenizer, CHATML)
    assert spans_of(plain, messages) == ["No<|im_end|>"]
    assert plain.encode(messages).input_ids == plain.encode(TALK).input_ids
    whole = build(tokenizer, CHATML, options=RenderOptions(train_on_prompt=True))
    before, after = plain.render(TALK).text.split("Yo<|im_end|>")
    assert spans_of(whole, messages) == [before, after]
    assert refusal(plain, messages[:2]) == "no supervised token: every answer has weight 0"
    last = build(tokenizer, CHATML, options=RenderOptions(train_on="last"))
    assert refusal(last, (*TALK[:2], *messages[:2])) == "no supervised token: the last answer has weight 0"


def test_generation_blocks_are_chosen_by_their_message(tokenizer: PreTrainedTokenizerFast) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    last = build(tokenizer, source, options=RenderOptions(train_on="last"))
    assert spans_of(last, TALK) == ["No<|im_end|>"]
    joined = "{% generation %}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% endgeneration %}"
    assert refusal(build(tokenizer, joined), TALK).startswith("answer not provable: a generation block holds several")


def test_a_default_system_text_stands_where_there_is_none(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML, options=RenderOptions(default_system="Be brief."))
    system = Message("system", "Be brief.")
    plain = build(tokenizer, CHATML)
    assert renderer.encode(TALK) == plain.encode((system, *TALK))
    assert renderer.encode_prompt(TALK[:1]) == plain.encode_prompt((system, TALK[0]))
    own = (Message("system", ""), *TALK)
    assert renderer.encode(own) == plain.encode(own)
    run_self_test(renderer)


def test_a_conversation_is_split_between_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = build(tokenizer, CHATML)
    system = Message("system", "S")
    turns = [(Message("user", f"q{n}"), Message("assistant", f"a{n}")) for n in range(5)]
    whole = (system, *(message for turn in turns for message in turn))
    two = renderer.encode((system, *turns[0], *turns[1])).input_ids
    pieces, left_out = renderer.encode_split(whole, (), len(two))
    assert left_out == 0
    assert pieces == [
        renderer.encode((system, *turns[0], *turns[1])),
        renderer.encode((system, *turns[2], *turns[3])),
        renderer.encode((system, *turns[4])),
    ]
    long = (Message("user", "q" * 50), Message("assistant", "a"))
    pieces, left_out = renderer.encode_split((system, *turns[0], *long, *turns[1]), (), len(two))
    assert pieces == [renderer.encode((system, *turns[0])), renderer.encode((system, *turns[1]))]
    assert left_out == len(renderer.encode((system, *long)).input_ids)
    last = build(tokenizer, CHATML, options=RenderOptions(train_on="last"))
    assert last.encode_split(whole, (), len(two)) == ([last.encode((system, *turns[4]))], 0)
    unanswered = (system, *turns[0], Message("user", "bye"))
    assert renderer.encode_split(unanswered, (), len(two)) == ([renderer.encode(unanswered)], 0)
    one = renderer.encode((system, *turns[0]))
    assert renderer.encode_split(unanswered, (), len(one.input_ids)) == ([one], 0)


CALLING = CHATML.replace(
    "+ m.content", "+ m.content + ('<call>' + m.tool_calls[0].name + ID + '</call>' if m.tool_calls else '')"
)


def test_a_call_may_be_written_otherwise_once_there_is_a_result(tokenizer: PreTrainedTokenizerFast) -> None:
    source = CALLING.replace("ID", "('' if loop.last else '#' + m.tool_calls[0].id)")
    messages = (
        TALK[0],
        Message("assistant", "", tool_calls=({"name": "f", "id": "7"},)),
        Message("tool", "2"),
        TALK[3],
    )
    assert spans_of(build(tokenizer, source), messages) == ["<call>f#7</call><|im_end|>", "No<|im_end|>"]


def test_a_tools_turn_may_run_into_the_next_header(tokenizer: PreTrainedTokenizerFast) -> None:
    closed = "('' if m.role == 'tool' and not loop.last else '<|im_end|>\n') -"
    source = CALLING.replace("ID", "''").replace("'<|im_end|>\n' -", closed)
    messages = (TALK[0], Message("assistant", "", tool_calls=({"name": "f"},)), Message("tool", "2"), TALK[3])
    assert spans_of(build(tokenizer, source), messages) == ["<call>f</call><|im_end|>", "No<|im_end|>"]

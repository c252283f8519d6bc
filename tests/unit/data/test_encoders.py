"""Row encoders: the samples of a row, the text that they keep, and what decides the tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from component.config.errors import DataError, UserError
from component.config.schema import DataSection
from component.data.encoders.build import build_row_encoder
from component.data.render import Renderer
from component.data.rows import EncodedRow, Message, Prepared, PreparedPair, Row, RowError, Segment, Source
from component.data.templates import ChatTemplate, load_chat_template

pytestmark = pytest.mark.usefixtures("shared_encoders")

SOURCE = Source("f", 1)
TALK = Row(SOURCE, messages=(Message("user", "What is <|im_end|>?"), Message("assistant", "An end. \u2600 ")))
TURNS = replace(TALK, messages=(*TALK.messages, *TALK.messages))
PIECES = Row(SOURCE, segments=(Segment("The sky", False), Segment(" is blue.", True)), ends_with_eos=True)
DOCUMENT = Row(SOURCE, text="The sky is blue, \u2600 and wide.")


@pytest.fixture(scope="module", params=["qwen2.5", "llama3"])
def tokenizer(request: pytest.FixtureRequest, real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    return real_tokenizer(request.param)


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    return load_chat_template("chatml" if tokenizer.eos_token == "<|im_end|>" else "llama3", tokenizer)


def encode(tokenizer: PreTrainedTokenizerBase, row: Row, kind: str, keep_text: bool = True, **options: Any) -> Any:
    renderer = None if kind == "text" else Renderer(tokenizer, template_of(tokenizer))
    section = DataSection(train_file=["f"], **options)
    (encoded,) = build_row_encoder(section, kind, tokenizer, renderer, keep_text=keep_text).encode_rows([row])
    return encoded


def decode(tokenizer: PreTrainedTokenizerBase, sample: Prepared) -> str:
    return tokenizer.decode(sample.input_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("row", "kind", "share", "truncation", "num_samples"),
    [
        (TALK, "messages", 1, "error", 1),
        (TALK, "messages", 0.9, "keep_start", 1),
        (TALK, "messages", 0.9, "keep_end", 1),
        (TURNS, "messages", 0.6, "split_turns", 2),
        (PIECES, "messages", 1, "error", 1),
        (DOCUMENT, "text", 1, "drop", 1),
        (DOCUMENT, "text", 0.4, "drop", 4),
    ],
)
def test_the_text_is_what_the_ids_encode(
    tokenizer: PreTrainedTokenizerBase, row: Row, kind: str, share: float, truncation: str, num_samples: int
) -> None:
    whole = encode(tokenizer, row, kind).samples[0]
    options = {"max_seq_length": int(whole.length * share), "truncation": truncation}
    samples = encode(tokenizer, row, kind, **options).samples
    assert [sample.text for sample in samples] == [decode(tokenizer, sample) for sample in samples]
    assert len(samples) == num_samples and (samples[0] == whole) == (share == 1)
    without = encode(tokenizer, row, kind, keep_text=False, **options)
    assert without.samples == tuple(replace(sample, text=None) for sample in samples)


def test_documents_are_learned_whole_and_end_in_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    (sample,) = encode(tokenizer, DOCUMENT, "text").samples
    assert list(sample.input_ids) == [*tokenizer(DOCUMENT.text)["input_ids"], tokenizer.eos_token_id]
    assert sample.spans == ((0, sample.length),) or sample.spans == ((1, sample.length),)
    assert sample.labels() == [-100, *sample.input_ids[1:]]
    ended = replace(DOCUMENT, text=DOCUMENT.text + tokenizer.eos_token)
    assert encode(tokenizer, ended, "text").samples == (sample,)
    assert str(encode(tokenizer, replace(DOCUMENT, text=""), "text")) == "the text is empty"
    if tokenizer.bos_token:
        begun = replace(DOCUMENT, text=tokenizer.bos_token + DOCUMENT.text)
        assert encode(tokenizer, begun, "text").samples == (sample,)


SYSTEM, QUESTION = Message("system", "Be brief."), Message("user", "What is 2 + 2?")
GOOD, BAD = Message("assistant", "It is 4."), Message("assistant", "Five, I think it is.")
PAIR = Row(SOURCE, messages=(SYSTEM, QUESTION, BAD, QUESTION), chosen=(GOOD,), rejected=(BAD,))
PLAIN_PAIR = Row(SOURCE, text="Two and two is", chosen=" four.", rejected=" five, I think.")


def pair_of(encoded: EncodedRow | RowError) -> PreparedPair:
    assert isinstance(encoded, EncodedRow), encoded
    (pair,) = encoded.samples
    assert isinstance(pair, PreparedPair)
    return pair


def learned(tokenizer: PreTrainedTokenizerBase, sample: Prepared) -> list[str]:
    return [tokenizer.decode(sample.input_ids[start:end]) for start, end in sample.spans]


def test_a_preference_is_two_conversations_with_one_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    pair = pair_of(encode(tokenizer, PAIR, "preference"))
    prompt = [message.as_template_message() for message in PAIR.messages]
    template = template_of(tokenizer).source
    for side, answer in ((pair.chosen, GOOD), (pair.rejected, BAD)):
        whole = [*prompt, answer.as_template_message()]
        expected = tokenizer.apply_chat_template(whole, chat_template=template, return_dict=False)
        assert list(side.input_ids) == expected
        assert side.text == tokenizer.apply_chat_template(whole, chat_template=template, tokenize=False)
        assert learned(tokenizer, side) == [answer.content + tokenizer.eos_token]
        start = side.spans[0][0]
        assert list(side.input_ids[:start]) == tokenizer.apply_chat_template(
            prompt, chat_template=template, add_generation_prompt=True, return_dict=False
        )
    assert (pair.source, pair.length) == (SOURCE, max(pair.chosen.length, pair.rejected.length))
    assert pair.num_supervised_tokens == pair.chosen.num_supervised_tokens + pair.rejected.num_supervised_tokens


def test_an_answer_may_be_several_messages(tokenizer: PreTrainedTokenizerBase) -> None:
    longer = replace(PAIR, chosen=(BAD, QUESTION, GOOD))
    pair = pair_of(encode(tokenizer, longer, "preference"))
    assert learned(tokenizer, pair.chosen) == [BAD.content + tokenizer.eos_token, GOOD.content + tokenizer.eos_token]
    assert pair.chosen.spans[0][0] == pair.rejected.spans[0][0]


def test_texts_are_compared_without_a_template(tokenizer: PreTrainedTokenizerBase) -> None:
    pair = pair_of(encode(tokenizer, PLAIN_PAIR, "preference"))
    for side, answer in ((pair.chosen, " four."), (pair.rejected, " five, I think.")):
        whole = "Two and two is" + answer
        assert list(side.input_ids) == [*tokenizer(whole)["input_ids"], tokenizer.eos_token_id]
        assert learned(tokenizer, side) == [answer + tokenizer.eos_token]
        assert side.text == (tokenizer.bos_token or "") + whole + tokenizer.eos_token


def test_pairs_that_cannot_be_compared(tokenizer: PreTrainedTokenizerBase) -> None:
    reasons = {
        "different prompts: the prompt becomes other tokens before chosen than before rejected": replace(
            PLAIN_PAIR, text="The sky is b", chosen="lue.", rejected="?"
        ),
        "chosen equals rejected: both become the same tokens": replace(
            PLAIN_PAIR, chosen=" four." + tokenizer.eos_token, rejected=" four."
        ),
        "refused by the chat template: no system text here (in chosen)": PAIR,
    }
    template = template_of(tokenizer)
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system text here') }}{% endif %}"
    renderer = Renderer(tokenizer, replace(template, source=refusal + template.source))
    encoder = build_row_encoder(DataSection(train_file=["f"]), "preference", tokenizer, renderer)
    assert [str(error) for error in encoder.encode_rows(list(reasons.values()))] == list(reasons)


@pytest.mark.parametrize("row", [PAIR, PLAIN_PAIR])
def test_pairs_that_are_too_long(tokenizer: PreTrainedTokenizerBase, row: Row) -> None:
    pair = pair_of(encode(tokenizer, row, "preference"))
    chosen, rejected, start = pair.chosen, pair.rejected, pair.chosen.spans[0][0]
    assert chosen.length < rejected.length

    def cut(max_seq_length: int, truncation: str) -> EncodedRow | RowError:
        return encode(tokenizer, row, "preference", max_seq_length=max_seq_length, truncation=truncation)

    limit = rejected.spans[-1][1] - 1
    removed = rejected.length - limit
    assert pair_of(cut(rejected.length, "error")) == pair
    lengths = f"chosen has {chosen.length} tokens, rejected {rejected.length}"
    assert str(cut(limit, "drop")) == f"over max_seq_length: {lengths}, {limit} allowed"
    with pytest.raises(DataError) as caught:
        cut(limit, "error")
    assert str(caught.value) == (
        f"f:1: {lengths}, over max_seq_length {limit}; "
        "raise max_seq_length, or set truncation to drop, keep_start or keep_end"
    )

    at_end = cut(limit, "keep_start")
    assert pair_of(at_end).chosen == chosen
    assert pair_of(at_end).rejected.input_ids == rejected.input_ids[:limit]
    assert pair_of(at_end).rejected.text == decode(tokenizer, pair_of(at_end).rejected)
    assert (at_end.num_tokens_cut, at_end.is_without_stop) == (removed, True)
    reason = f"preference truncated to nothing: the prompt has {start} tokens and fills max_seq_length {start}"
    assert str(cut(start, "keep_start")) == reason

    at_start = cut(limit, "keep_end")
    for before, after in ((chosen, pair_of(at_start).chosen), (rejected, pair_of(at_start).rejected)):
        assert after.input_ids == before.input_ids[removed:]
        assert after.labels()[1:] == before.labels()[removed + 1 :]
        assert after.text == decode(tokenizer, after)
    assert (at_start.num_tokens_cut, at_start.is_without_stop) == (2 * removed, False)
    shortest = rejected.length - start + 1
    assert pair_of(cut(shortest, "keep_end")).chosen.spans[0][0] == 1
    assert str(cut(shortest - 1, "keep_end")) == (
        f"preference truncated to nothing: an answer of {shortest - 1} tokens leaves no room for its prompt in "
        f"max_seq_length {shortest - 1}"
    )


def test_answers_that_differ_only_beyond_the_limit(tokenizer: PreTrainedTokenizerBase) -> None:
    row = replace(PLAIN_PAIR, rejected=" four. Or five.")
    length = pair_of(encode(tokenizer, row, "preference")).chosen.length - 1
    assert str(encode(tokenizer, row, "preference", max_seq_length=length, truncation="keep_start")) == (
        f"preference truncated to nothing: chosen equals rejected up to max_seq_length {length}"
    )


def test_labelled_answers_are_those_of_sft_with_their_label(tokenizer: PreTrainedTokenizerBase) -> None:
    for row in (TALK, PIECES):
        for label in (True, False):
            (sample,) = encode(tokenizer, replace(row, label=label), "labelled").samples
            assert sample == replace(encode(tokenizer, row, "messages").samples[0], label=label)
            (cut,) = encode(
                tokenizer,
                replace(row, label=label),
                "labelled",
                max_seq_length=sample.length - 1,
                truncation="keep_start",
            ).samples
            assert (cut.label, cut.input_ids) == (label, sample.input_ids[:-1])


def test_prompts_end_where_the_answer_begins(tokenizer: PreTrainedTokenizerBase) -> None:
    columns = {"solution": "4", "tags": ["a"], "level": 2}
    talk = Row(SOURCE, messages=(SYSTEM, QUESTION), columns=columns)
    template = template_of(tokenizer).source
    expected = tokenizer.apply_chat_template(
        [SYSTEM.as_template_message(), QUESTION.as_template_message()],
        chat_template=template,
        add_generation_prompt=True,
        return_dict=False,
    )
    (prompt,) = encode(tokenizer, talk, "prompt").samples
    assert list(prompt.input_ids) == expected and prompt.text == decode(tokenizer, prompt)
    turns = [SYSTEM.as_template_message(), QUESTION.as_template_message()]
    assert (prompt.spans, prompt.columns, set(prompt.labels())) == ((), {**columns, "prompt": turns}, {-100})
    (plain,) = encode(tokenizer, Row(SOURCE, text="2 + 2 =", columns=columns), "prompt").samples
    assert list(plain.input_ids) == tokenizer("2 + 2 =")["input_ids"]
    assert plain.text == (tokenizer.bos_token or "") + "2 + 2 =" and plain.columns["prompt"] == "2 + 2 ="


def test_prompts_that_are_too_long(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Row(SOURCE, messages=(QUESTION,), columns={"solution": 4})
    (whole,) = encode(tokenizer, row, "prompt").samples
    limit = whole.length - 2
    room = {"max_seq_length": limit + 7, "max_completion_length": 7}
    encoded = encode(tokenizer, row, "prompt", **room, truncation="keep_end")
    (cut,) = encoded.samples
    assert (cut.input_ids, cut.columns, encoded.num_tokens_cut) == (whole.input_ids[2:], whole.columns, 2)
    assert cut.text == decode(tokenizer, cut)
    dropped = encode(tokenizer, row, "prompt", **room, truncation="drop")
    why = f"over max_seq_length: {whole.length} tokens, {limit} allowed beside max_completion_length 7"
    assert str(dropped) == why
    with pytest.raises(DataError, match="raise max_seq_length, or set truncation to drop or keep_end$"):
        encode(tokenizer, row, "prompt", **room, truncation="error")


def test_columns_are_json(tokenizer: PreTrainedTokenizerBase) -> None:
    def columns_of(**columns: Any) -> Any:
        return encode(tokenizer, Row(SOURCE, text="a", columns=columns), "prompt")

    day = datetime(2024, 7, 26, 12, 30)
    (prompt,) = columns_of(day=day, days=[day.date()]).samples
    assert prompt.columns == {"day": "2024-07-26T12:30:00", "days": ["2024-07-26"], "prompt": "a"}
    assert str(columns_of(a=1, blob=b"x")) == "column is not JSON: blob holds a bytes"
    assert str(columns_of(score=float("nan"))) == "column is not JSON: score holds nan"


def test_conversations_of_every_kind_need_a_template(real_tokenizer) -> None:
    tokenizer = real_tokenizer("qwen2.5")
    tokenizer.chat_template = None
    rows = {"messages": TALK, "labelled": replace(TALK, label=True), "preference": PAIR, "prompt": TALK}
    for kind, row in rows.items():
        with pytest.raises(UserError, match="the tokenizer has no chat template of its own"):
            build_row_encoder(DataSection(train_file=["f"]), kind, tokenizer, None).encode_rows([row])


@pytest.mark.parametrize(
    ("kind", "truncation", "ways"),
    [
        ("preference", "split_turns", "drop, keep_start, keep_end or error"),
        ("labelled", "split_turns", "drop, keep_start, keep_end or error"),
        ("prompt", "keep_start", "drop, keep_end or error"),
    ],
)
def test_rows_that_cannot_be_cut_so(tokenizer: PreTrainedTokenizerBase, kind: str, truncation: str, ways: str) -> None:
    with pytest.raises(UserError) as caught:
        build_row_encoder(DataSection(train_file=["f"], truncation=truncation), kind, tokenizer, None)
    assert str(caught.value) == f"truncation: {truncation} does not fit rows of the kind {kind}; use {ways}"


def test_facts_are_all_that_decides_the_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    def facts(kind: str, template: str = "chatml", keep_text: bool = False, **options: Any) -> str:
        renderer = None if kind == "text" else Renderer(tokenizer, load_chat_template(template, tokenizer))
        section = DataSection(train_file=["f"], **options)
        return json.dumps(build_row_encoder(section, kind, tokenizer, renderer, keep_text=keep_text).facts())

    distinct = [
        facts("messages"),
        facts("messages", "qwen"),
        facts("messages", max_seq_length=7),
        facts("messages", truncation="error"),
        facts("messages", append_stop_token=True),
        facts("messages", train_on_prompt=True),
        *(facts(kind) for kind in ("text", "labelled", "preference", "prompt")),
    ]
    assert len(set(distinct)) == len(distinct)
    assert facts("messages") == facts("messages", keep_text=True)
    assert facts("preference") == facts("preference", train_on_prompt=True)

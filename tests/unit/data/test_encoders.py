"""Row encoders: the samples of a row, the text that they keep, and what decides the tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from component.config.schema import DataSection
from component.data.encoders.build import build_row_encoder
from component.data.render import Renderer
from component.data.rows import Message, Prepared, Row, Segment, Source
from component.data.templates import load_chat_template

SOURCE = Source("f", 1)
TALK = Row(SOURCE, messages=(Message("user", "What is <|im_end|>?"), Message("assistant", "An end. \u2600 ")))
TURNS = replace(TALK, messages=(*TALK.messages, *TALK.messages))
PIECES = Row(SOURCE, segments=(Segment("The sky", False), Segment(" is blue.", True)), ends_with_eos=True)
DOCUMENT = Row(SOURCE, text="The sky is blue, \u2600 and wide.")


@pytest.fixture(scope="module", params=["qwen2.5", "llama3"])
def tokenizer(request: pytest.FixtureRequest, test_assets: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(test_assets / "tokenizers" / request.param)


def encode(tokenizer: PreTrainedTokenizerBase, row: Row, kind: str, keep_text: bool = True, **options: Any) -> Any:
    renderer = None if kind == "text" else Renderer(tokenizer, load_chat_template("chatml", tokenizer))
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

"""Samples as text: the pieces join to what the ids encode, and their marks are those of the labels."""

from __future__ import annotations

from transformers import AutoTokenizer

from component.data.rows import Prepared, Source
from component.pipeline.sample_text import decode_pieces, shown_sample

BOS, EOS = "<|begin|>", "<|end|>"
SOURCE = Source("a.jsonl", 3)


def test_pieces(tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [f"{BOS}<|user|>Schöne   Grüße{EOS}<|assistant|>", f"hello world{EOS}", "<|user|>more"]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    first, second = len(ids[0]), len(ids[0]) + len(ids[1])
    sample = Prepared(tuple(sum(ids, [])), ((first, second),), SOURCE)
    assert decode_pieces(sample, tokenizer) == ((texts[0], False), (texts[1], True), (texts[2], False))
    shown = shown_sample(sample, tokenizer)
    assert shown.parts == (("", decode_pieces(sample, tokenizer)),)
    assert str(shown.row).startswith(f"a.jsonl:3: {sample.length} tokens, {len(ids[1])} supervised (")


def test_nothing_predicts_the_first_token(tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer(f"{BOS}hello{EOS}", add_special_tokens=False)["input_ids"]
    pieces = decode_pieces(Prepared(tuple(ids), ((0, len(ids)),), SOURCE), tokenizer)
    assert pieces == ((BOS, False), (f"hello{EOS}", True))


def test_a_character_that_a_span_cuts_is_shown_as_such(tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("a☃b", add_special_tokens=False)["input_ids"]
    assert len(ids) == 5, "the snowman takes three tokens"
    pieces = decode_pieces(Prepared(tuple(ids), ((2, 5),), SOURCE), tokenizer)
    assert pieces == (("a\ufffd", False), ("\ufffd\ufffdb", True))

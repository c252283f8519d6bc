"""Batched encoding gives the tokenizer's own ids, and its offsets' answer to which token a character belongs to."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from component.data.batch_encoding import BatchEncoder, TokensOfBytes, TokensWithOffsets

REAL = ("llama3", "qwen2.5")
CORPUS = ["The Rhine flows through Cologne; größer, 早上好, naïve.\n  def f():\n\treturn 1  \n", "a b c d e f 1234"] * 3
#: What makes tokens and characters disagree: torn characters, wide spaces, letters that NFC composes or splits.
PIECES = [
    "a", "Yes", " ", "  ", "\n", "\t", "\u3000", "\xa0", "\u2028", "é", "e\u0301", "\u212b", "각", "\u1100\u1161",
    "早", "𠀋", "👩‍🔬", "☀️", "🇩🇪", "\ufffd", "\u200b", "\0", "<|im_end|>", "<|eot_id|>", "<s>", "[MASK]", "12", ".",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12).map("".join)
texts = texts.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))


def first_from(text: str, offsets: Sequence[tuple[int, int]], position: int) -> int:
    """The rule as it reads, from the offsets of all tokens."""
    token = 0
    while token < len(offsets):
        start, end = offsets[token]
        visible = next((place for place in range(start, end) if not text[place].isspace()), start)
        if visible >= position:
            break
        token += 1
    return token


def check(tokenizer: PreTrainedTokenizerFast, text_batch: list[str], encoder: BatchEncoder | None = None) -> list[type]:
    """Compare ids, and the token at every character, with what the tokenizer says; gives how each was found."""
    encoder = encoder or BatchEncoder.of(tokenizer)
    tokens = encoder.encode(text_batch)
    assert encoder.encode_ids(text_batch) == [list(item.input_ids) for item in tokens]
    own = tokenizer(text_batch, add_special_tokens=False, return_offsets_mapping=True)
    for text, item, ids, offsets in zip(text_batch, tokens, own["input_ids"], own["offset_mapping"], strict=True):
        assert list(item.input_ids) == ids
        expected = [first_from(text, offsets, position) for position in range(len(text) + 1)]
        assert [item.first_from(position) for position in range(len(text) + 1)] == expected
    return [type(item) for item in tokens]


@pytest.fixture(scope="session", params=REAL)
def real(request: pytest.FixtureRequest, test_assets: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(test_assets / "tokenizers" / request.param)


@pytest.fixture(scope="session")
def real_encoder(real: PreTrainedTokenizerFast) -> BatchEncoder:
    return BatchEncoder.of(real)


def test_real_texts(real: PreTrainedTokenizerFast, real_encoder: BatchEncoder, test_assets: Path) -> None:
    folder = test_assets / "real_data"
    rows = json.loads((folder / "alpaca_en_demo.json").read_text(encoding="utf-8"))[:60]
    articles = (folder / "wiki_demo.txt").read_text(encoding="utf-8")
    documents = [articles[start : start + 700] for start in range(0, 42_000, 700)]
    answers = [
        real.apply_chat_template([{"role": "user", "content": row["instruction"]}], tokenize=False) + row["output"]
        for row in rows
    ]
    assert sum(not text.isascii() for text in documents) > 5
    found = check(real, documents + answers, real_encoder)
    assert found.count(TokensOfBytes) > 0.9 * len(found)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(texts, min_size=1, max_size=4))
def test_any_text(real: PreTrainedTokenizerFast, real_encoder: BatchEncoder, batch: list[str]) -> None:
    check(real, batch, real_encoder)


def _bpe(*, before: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = before
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _llama2() -> Tokenizer:
    """BPE as sentencepiece does it: a space before the text, spaces as letters, unknown letters as bytes."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _unigram() -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _stripping() -> Tokenizer:
    backend = _bpe(before=pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True), AddedToken("<|im_end|>", rstrip=True)])
    return backend


BUILT = {
    "sentencepiece BPE": _llama2,
    "unigram": _unigram,
    "byte-level with a space before": lambda: _bpe(before=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "byte-level, lower case": lambda: _bpe(
        before=pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.Lowercase()
    ),
    "byte-level, added tokens that take spaces": _stripping,
}


@pytest.fixture(scope="session", params=BUILT)
def built(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=BUILT[request.param]())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(texts, min_size=1, max_size=3))
def test_tokenizers_whose_tokens_are_not_the_bytes(built: PreTrainedTokenizerFast, batch: list[str]) -> None:
    assert set(check(built, batch)) <= {TokensWithOffsets}


def _with_end_of_turn(**options: bool) -> PreTrainedTokenizerFast:
    backend = _bpe(before=pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFC())
    backend.add_special_tokens([AddedToken("<|im_end|>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|im_end|>", **options)


def test_no_texts() -> None:
    for build in (_llama2, lambda: _bpe(before=pre_tokenizers.ByteLevel(add_prefix_space=False))):
        encoder = BatchEncoder(build())
        assert encoder.encode([]) == encoder.encode_ids([]) == []
        assert [item.input_ids for item in encoder.encode(["", "a", ""])][::2] == [(), ()]


def test_a_text_that_is_normalized_has_the_tokenizers_own_offsets() -> None:
    assert check(_with_end_of_turn(), ["caf\u00e9 Yes", "cafe\u0301 Yes"]) == [TokensOfBytes, TokensWithOffsets]
    same_number_of_bytes = "\u212b\u212b\u212b Yes \u0958"  # NFC takes a byte of three letters, gives one three
    assert check(_with_end_of_turn(), [same_number_of_bytes]) == [TokensWithOffsets]


def test_a_token_that_begins_within_a_character_and_ends_in_the_next() -> None:
    """The wide space is three bytes; the last two of them and the letter after it are one token, which is visible."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary = letters | {"ĢĢ": 256, "ĢĢa": 257, "ĢĢĠ": 258}
    backend = Tokenizer(models.BPE(vocabulary, [("Ģ", "Ģ"), ("ĢĢ", "a"), ("ĢĢ", "Ġ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert check(tokenizer, ["\u3000a", "\u3000 a", "b\u3000ab"]) == [TokensOfBytes] * 3
    (tokens,) = BatchEncoder.of(tokenizer).encode(["\u3000a"])
    assert tokens.input_ids == (letters["ã"], 257) and tokens.first_from(1) == 1


def test_settings_that_other_calls_left_behind() -> None:
    tokenizer = _with_end_of_turn()
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    encoder = BatchEncoder.of(tokenizer)
    text = "one two three<|im_end|>\n"
    (expected,) = encoder.encode([text])
    assert len(expected.input_ids) > 4 and stop in expected.input_ids
    tokenizer([text, "a"], truncation=True, max_length=2, padding="max_length", split_special_tokens=True)
    assert tokenizer.backend_tokenizer.truncation and tokenizer.backend_tokenizer.padding
    (again,) = encoder.encode([text])
    assert again.input_ids == expected.input_ids


def test_special_tokens_are_split_where_the_tokenizer_splits_them() -> None:
    tokenizer = _with_end_of_turn(split_special_tokens=True)
    assert check(tokenizer, ["Yes<|im_end|>\n"]) == [TokensOfBytes]
    (split,) = BatchEncoder.of(tokenizer).encode(["Yes<|im_end|>\n"])
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in split.input_ids


def test_a_text_of_which_the_tokenizer_drops_a_part_has_its_own_offsets() -> None:
    """Only the sum of bytes shows it: this tokenizer leaves out what stands between #."""
    split = pre_tokenizers.Split(Regex("#[^#]*#"), behavior="removed")
    before = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_bpe(before=before))
    assert check(tokenizer, ["The Rhine", "The #great# Rhine"]) == [TokensOfBytes, TokensWithOffsets]


def test_the_text_of_another_thread_does_not_disturb() -> None:
    """Nothing of the tokenizer is set anew while it encodes, which it would answer with an error."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_bpe(before=pre_tokenizers.ByteLevel(add_prefix_space=False)))
    encoder = BatchEncoder.of(tokenizer)
    generator = random.Random(0)
    batches = [["".join(generator.choices("abc déf\n", k=500)) for _ in range(50)] for _ in range(16)]
    expected = [[item.input_ids for item in encoder.encode(batch)] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = [[item.input_ids for item in batch] for batch in pool.map(encoder.encode, batches)]
    assert found == expected

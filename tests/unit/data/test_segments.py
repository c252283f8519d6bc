"""Segments and plain prompts with completions: exact tokens of one text, and the spans of its pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from component.config.errors import UserError
from component.config.schema import DataSection
from component.data.content_controls import CONTROL_TOKENS_IN_PLAIN_TEXT
from component.data.control_tokens import either
from component.data.encoders.build import build_row_encoder
from component.data.encoders.segments import NO_STOP, SegmentEncoder
from component.data.prepare import PreparedData, prepare_data
from component.data.render import Renderer
from component.data.rows import Row, RowError, Segment, Source
from component.data.templates import load_chat_template
from component.pipeline.rendering import build_rendering

pytestmark = pytest.mark.usefixtures("shared_encoders")

SOURCE = Source("f", 1)


@pytest.fixture(scope="module")
def llama(real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    return real_tokenizer("llama3")


@pytest.fixture(scope="module")
def qwen(real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    return real_tokenizer("qwen2.5")


def row(*pieces: tuple[str, bool], ends_with_eos: bool = False) -> Row:
    return Row(SOURCE, segments=tuple(Segment(*piece) for piece in pieces), ends_with_eos=ends_with_eos)


def encode(
    tokenizer: PreTrainedTokenizerBase, of: Row, **options: bool
) -> tuple[list[int], list[str], tuple[str, ...]]:
    """Token ids, the text of each span, and notices."""
    (encoded,) = SegmentEncoder(tokenizer, **options).encode_batch([of])
    assert not isinstance(encoded, RowError)
    spans = [tokenizer.decode(encoded.input_ids[start:end]) for start, end in encoded.spans]
    return list(encoded.input_ids), spans, encoded.notices


def test_a_prompt_and_its_completion(llama: PreTrainedTokenizerBase) -> None:
    of = row(("The sky is", False), (" blue.", True), ends_with_eos=True)
    ids, spans, notices = encode(llama, of)
    assert ids == [*llama("The sky is blue.")["input_ids"], llama.eos_token_id]
    assert spans == [" blue." + llama.eos_token] and notices == ()
    assert encode(llama, of, train_on_prompt=True)[1] == ["The sky is blue." + llama.eos_token]


def test_segments_are_encoded_as_they_are(qwen: PreTrainedTokenizerBase) -> None:
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    of = row((text, False), ("yo", True), ("<|im_end|>", True), ("\n", False), ("x", True))
    ids, spans, notices = encode(qwen, of)
    assert ids == qwen(text + "yo<|im_end|>\nx", add_special_tokens=False)["input_ids"]
    assert spans == ["yo<|im_end|>", "x"]
    assert notices == (CONTROL_TOKENS_IN_PLAIN_TEXT, NO_STOP)
    stopped = encode(qwen, of, append_stop_token=True)
    assert stopped[1:] == (["yo<|im_end|>", "x<|im_end|>"], (CONTROL_TOKENS_IN_PLAIN_TEXT,))
    assert encode(qwen, of, train_on_prompt=True)[1] == ["yo<|im_end|>", "x"]
    assert encode(qwen, row(("a", False), ("b<|im_end|>", True)))[2] == (CONTROL_TOKENS_IN_PLAIN_TEXT,)
    assert encode(qwen, row(("a", False), ("b<|im_end>", True)))[2] == (NO_STOP,)


def test_bos_and_eos_come_once(llama: PreTrainedTokenizerBase) -> None:
    of = row((llama.bos_token + "a", False), (" b" + llama.eos_token, True), ends_with_eos=True)
    ids, spans, _ = encode(llama, of)
    assert ids == llama(llama.bos_token + "a b" + llama.eos_token, add_special_tokens=False)["input_ids"]
    assert spans == [" b" + llama.eos_token]


PIECES = st.lists(st.tuples(st.text(st.sampled_from("ab \n字é☀"), max_size=6), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(pieces=PIECES)
def test_ids_are_those_of_the_whole_text(llama: PreTrainedTokenizerBase, pieces: list[tuple[str, bool]]) -> None:
    text = "".join(piece for piece, _ in pieces)
    supervised = "".join(piece for piece, is_supervised in pieces if is_supervised)
    if not supervised.strip():
        return
    (encoded,) = SegmentEncoder(llama).encode_batch([row(*pieces)])
    if isinstance(encoded, RowError):
        assert "token" in str(encoded)
        return
    assert list(encoded.input_ids) == llama(text)["input_ids"]
    assert all(1 <= start < end <= len(encoded.input_ids) for start, end in encoded.spans)


def prepare(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    renderer: Renderer | None,
    rows: list[Any],
    kind: str = "messages",
    **options: Any,
) -> PreparedData:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection(train_file=[str(path)], **options)
    return prepare_data(section, build_row_encoder(section, kind, tokenizer, renderer))


ROWS = [
    {"prompt": "One and one is", "completion": " two."},
    {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yo"}]},
    {"prompt": "Two and two is", "completion": " four."},
]


def test_texts_and_messages_in_one_file_keep_their_order(qwen: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    renderer = Renderer(qwen, load_chat_template("auto", qwen))
    data = prepare(tmp_path, qwen, renderer, ROWS)
    assert [sample.source.line for sample in data.train] == [1, 2, 3]
    learned = [qwen.decode([label for label in sample.labels() if label != -100]) for sample in data.train]
    assert learned == [" two.<|im_end|>", "yo<|im_end|>", " four.<|im_end|>"]
    assert list(data.train[1].input_ids) == list(renderer.encode(load_messages()).input_ids)


SPELLING_OUT = {
    "messages": {"prompt": "a<|im_end|>", "completion": " b"},
    "labelled": {"prompt": "a", "completion": " b<|im_start|>", "label": True},
    "preference": {"prompt": "a", "chosen": " b", "rejected": " c<|im_end|>"},
    "prompt": {"prompt": "a<|im_end|>"},
}


@pytest.mark.parametrize("kind", SPELLING_OUT)
def test_control_tokens_in_plain_texts_are_counted_or_reasons(
    kind: str, qwen: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    harmless = json.loads(json.dumps(SPELLING_OUT[kind]).replace("|", "/"))
    rows = [harmless, SPELLING_OUT[kind], harmless | {"prompt": "z"}]
    counted = [prepare(tmp_path, qwen, None, rows, kind, content_control_tokens=how) for how in ("text", "control")]
    assert counted[0].train == counted[1].train and counted[0].train.num_rows == 3
    for data in counted:
        assert f"train: {CONTROL_TOKENS_IN_PLAIN_TEXT} (1 row)" in data.report.lines()
    rejecting = prepare(tmp_path, qwen, None, rows, kind, content_control_tokens="reject", max_bad_rows=1.0)
    (failure,) = rejecting.report.failures
    assert failure.source.line == 2
    assert failure.reason.startswith("control token in content: the text spells out '<|im_")
    assert [sample.source.line for sample in rejecting.train] == [1, 3]


def test_documents_that_spell_out_control_tokens_are_counted(qwen: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [{"text": "a<|im_end|>b"}, {"text": "a<|im_"}, {"text": "<|endoftext|>" * 50}]
    data = prepare(tmp_path, qwen, None, rows, "text", max_seq_length=20)
    assert f"train: {CONTROL_TOKENS_IN_PLAIN_TEXT} (2 rows)" in data.report.lines()
    qwen_splitting = AutoTokenizer.from_pretrained(qwen.name_or_path, split_special_tokens=True)
    data = prepare(tmp_path, qwen_splitting, None, rows, "text", max_seq_length=20)
    assert not any(CONTROL_TOKENS_IN_PLAIN_TEXT in line for line in data.report.lines())


@given(tokens=st.lists(st.text("<|ab.", min_size=1, max_size=5), min_size=1, max_size=9), text=st.text("<|ab.x"))
def test_a_pattern_of_many_texts_finds_the_longest_one(tokens: list[str], text: str) -> None:
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    assert re.findall(either(tokens), text) == re.findall(longest_first, text)


def load_messages() -> Any:
    from component.data.formats.interface import load_format

    return load_format("prompt_completion").parse(ROWS[1], SOURCE).messages


def test_over_long_segments(qwen: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    rows = [ROWS[0], {"prompt": "a", "completion": " b" * 50}]
    for truncation, reason in {
        "drop": "over max_seq_length: 52 tokens, 20 allowed",
        "split_turns": "over max_seq_length: 52 tokens, 20 allowed, and no turns to split",
    }.items():
        options = {"max_seq_length": 20, "truncation": truncation, "max_bad_rows": 1.0}
        data = prepare(tmp_path, qwen, None, rows, **options)
        assert [failure.reason for failure in data.report.failures] == [reason]
    data = prepare(tmp_path, qwen, None, rows, max_seq_length=20, truncation="keep_start")
    assert [sample.length for sample in data.train] == [len(data.train[0].input_ids), 20]
    assert data.report.rows_without_stop == 1


def test_a_tokenizer_without_a_template_trains_on_texts(real_tokenizer, tmp_path: Path) -> None:
    tokenizer = real_tokenizer("qwen2.5")
    tokenizer.chat_template = None
    rendering = build_rendering(DataSection(train_file=["f"]), tokenizer, "messages")
    assert rendering.chat_template is None
    assert rendering.stop_token_ids == (tokenizer.eos_token_id,)
    data = prepare(tmp_path, tokenizer, rendering.renderer, [ROWS[0], ROWS[2]])
    assert len(data.train) == 2
    with pytest.raises(UserError, match="template_name: got auto, but the tokenizer has no chat template of its own"):
        prepare(tmp_path, tokenizer, rendering.renderer, ROWS)

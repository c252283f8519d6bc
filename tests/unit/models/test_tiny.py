"""Tiny models: the same bytes twice, control tokens and stop token in place, impossible sizes refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from component.config.errors import DataError, DeviceMemoryError, UserError
from component.models.tiny import SHAPES, Shape, check_shape, make_tiny_model
from component.models.tiny_tokenizer import read_texts

SHAPE = Shape(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"{n} red beetles slept"}) + "\n" for n in range(50)), encoding="utf-8")
    return path


def test_same_seed_same_bytes(tmp_path: Path, texts: Path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        make_tiny_model(tmp_path / name, shape=SHAPE, seed=seed, texts=[texts])
    folders = (tmp_path / name for name in ("first", "second", "other"))
    first, second, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    assert [name for name in first if first[name] != other[name]] == ["model.safetensors"]


def test_random_state_is_left_alone(tmp_path: Path, texts: Path) -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    make_tiny_model(tmp_path, shape=SHAPE, seed=3, texts=[texts])
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_chat_template_and_stop_token(tmp_path: Path, texts: Path, pad_is_eos: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = make_tiny_model(tmp_path, shape=SHAPE, seed=0, texts=[texts], pad_is_eos=pad_is_eos)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|begin|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    ids = tokenizer(rendered, add_special_tokens=False).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert tokenizer.decode(tokenizer("naïve 雪 \n x").input_ids, skip_special_tokens=True) == "naïve 雪 \n x"
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) is pad_is_eos
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer) == made["vocab_size"] <= SHAPE.vocab_size
    assert model.num_parameters() == made["num_parameters"]


def test_a_tokenizer_folder_is_copied(tmp_path: Path, texts: Path) -> None:
    make_tiny_model(tmp_path / "a", shape=SHAPE, seed=0, texts=[texts])
    made = make_tiny_model(tmp_path / "b", shape=replace(SHAPE, vocab_size=500), seed=0, tokenizer=tmp_path / "a")
    assert made["vocab_size"] == 500
    assert (tmp_path / "b/tokenizer.json").read_bytes() == (tmp_path / "a/tokenizer.json").read_bytes()
    with pytest.raises(UserError, match="vocab_size: got 10; the tokenizer at"):
        make_tiny_model(tmp_path / "c", shape=replace(SHAPE, vocab_size=10), seed=0, tokenizer=tmp_path / "a")


def test_published_shape() -> None:
    shape = SHAPES["llama3-8b"]
    check_shape(shape)
    attention = shape.hidden_size**2 * 2 + 2 * shape.hidden_size**2 // 4
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
    total = shape.num_hidden_layers * layer + 2 * shape.vocab_size * shape.hidden_size + shape.hidden_size
    assert total == 8_030_261_248


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers: got 0; use a positive number"),
        ({"hidden_size": 30}, "hidden_size: 30 over 4 heads; each head needs a whole, even width"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: got 3; use a divisor of num_attention_heads, 4"),
    ],
)
def test_impossible_sizes(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_shape(replace(SHAPE, **change))
    assert caught.value.messages == (message,)


def test_a_family_in_its_one_size(tmp_path: Path, texts: Path) -> None:
    make_tiny_model(tmp_path / "moe", shape=Shape(vocab_size=300), seed=0, texts=[texts], model_type="mixtral")
    config = json.loads((tmp_path / "moe/config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["num_local_experts"]) == ("mixtral", 4)
    assert config["eos_token_id"] is not None
    with pytest.raises(UserError) as caught:
        make_tiny_model(tmp_path / "other", shape=SHAPE, seed=0, texts=[texts], model_type="mixtral")
    assert caught.value.messages == ("hidden_size: mixtral is made in one tiny size; leave it out, or make a llama",)


def test_a_model_that_is_beyond_memory_leaves_nothing_behind(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(DeviceMemoryError, match="the model cannot be made on the cpu: .*; use smaller sizes"):
        make_tiny_model(tmp_path / "big", shape=replace(SHAPE, intermediate_size=10**15), seed=0, texts=[texts])
    assert not (tmp_path / "big").exists()


def test_nothing_is_overwritten(tmp_path: Path, texts: Path) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "run.json").write_text("{}", encoding="utf-8")
    file.write_text("x", encoding="utf-8")
    for output, message in (
        (full, f"output: {full} is not empty; name a new folder, or remove this one"),
        (file, f"output: {file} is a file; name a new folder"),
    ):
        with pytest.raises(UserError) as caught:
            make_tiny_model(output, shape=SHAPE, seed=0, texts=[texts])
        assert caught.value.messages == (message,)
    assert [path.name for path in full.iterdir()] == ["run.json"]


def test_texts_and_tokenizer_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name either texts"):
        make_tiny_model(tmp_path, shape=SHAPE, seed=0)


def test_vocabulary_needs_room_for_bytes(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(UserError, match="vocab_size: got 100; use 263 or more"):
        make_tiny_model(tmp_path, shape=replace(SHAPE, vocab_size=100), seed=0, texts=[texts])


def test_texts_of_each_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"x": "one", "n": 1, "y": ["two"]}]', encoding="utf-8")
    (tmp_path / "b.txt").write_text("three\nfour", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"x": "five"}\n\n{oops\n', encoding="utf-8")
    assert list(read_texts([tmp_path / "a.json", tmp_path / "b.txt"])) == ["one", "two", "three", "four"]
    with pytest.raises(DataError, match=r"c\.jsonl:3: not valid JSON"):
        list(read_texts([tmp_path / "c.jsonl"]))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_texts([tmp_path / "absent.txt"]))

"""Loading tokenizers and choosing the pad token."""

from __future__ import annotations

import json
import shutil

import pytest

from component.config.errors import UserError
from component.models.tokenizer import load_tokenizer, read_tokenizer


@pytest.fixture
def changed(tiny_model, tmp_path, section):
    """A section whose tokenizer's settings are changed; None removes one."""

    def build(**settings):
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copyfile(tiny_model / name, tmp_path / name)
        file = tmp_path / "tokenizer_config.json"
        content = {**json.loads(file.read_text()), **settings}
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return section(model_name_or_path=str(tmp_path))

    return build


def test_the_tokenizers_own_pad_token_is_kept(section) -> None:
    loaded = load_tokenizer(section())
    assert (loaded.tokenizer.pad_token, loaded.notices) == ("<|pad|>", ())


def test_a_reserved_token_pads(changed) -> None:
    loaded = load_tokenizer(changed(pad_token=None))
    assert loaded.tokenizer.pad_token == "<|pad|>"
    assert loaded.notices == ("the tokenizer has no pad token; its unused <|pad|> pads",)


def test_eos_pads_where_nothing_is_reserved(test_assets, section) -> None:
    loaded = load_tokenizer(section(tokenizer_name_or_path=str(test_assets / "tokenizers" / "llama3")))
    tokenizer = loaded.tokenizer
    assert tokenizer.pad_token_id is not None
    if loaded.notices:
        assert tokenizer.pad_token == tokenizer.eos_token or tokenizer.pad_token in loaded.notices[0]


def test_without_eos_nothing_can_stop(changed) -> None:
    with pytest.raises(UserError, match="has no EOS token, so no answer could end"):
        load_tokenizer(changed(eos_token=None))


def test_a_folder_without_tokenizer(section, tmp_path) -> None:
    with pytest.raises(UserError, match=f"tokenizer_name_or_path: no tokenizer can be loaded from {tmp_path}"):
        load_tokenizer(section(tokenizer_name_or_path=str(tmp_path)))


def test_tokenizer_files_without_a_model_do_where_none_is_needed(changed, section, tmp_path) -> None:
    config = changed()
    (tmp_path / "config.json").unlink()
    assert load_tokenizer(config, needs_model=False).tokenizer.eos_token == "<|end|>"
    with pytest.raises(UserError, match="has no config.json"):
        load_tokenizer(config)
    named = section(model_name_or_path="no/model", tokenizer_name_or_path=str(tmp_path))
    assert load_tokenizer(named, needs_model=False).tokenizer.eos_token == "<|end|>"
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no config.json"):
        load_tokenizer(config, needs_model=False)


def test_what_is_no_fault_of_a_file_is_not_told_as_one(tiny_model, monkeypatch) -> None:
    from transformers import AutoTokenizer

    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(MemoryError):
        read_tokenizer(str(tiny_model))

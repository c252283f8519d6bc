"""Loading of tokenizers, and which token pads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.checkpoint import load_config
from component.models.failures import TokenizerFileErrors
from component.models.model_files import ADAPTER_FILE, CONFIG_FILE, find_model, has_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that published tokenizers reserve for padding without naming them as their pad token.
RESERVED_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<PAD>", "<|pad|>", "<|PAD_TOKEN|>")


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer with a pad token, and what was set on it."""

    tokenizer: PreTrainedTokenizerBase
    notices: tuple[str, ...] = ()


def load_tokenizer(model: ModelSection, *, needs_model: bool = True) -> LoadedTokenizer:
    """Load the tokenizer of a model. Imports transformers: where Unsloth was chosen, it must be imported before.

    An adapter folder that has a tokenizer of its own (a run folder does) is preferred to its base. The config's new
    tokens are in it.

    Args:
        needs_model: false takes a tokenizer that is named, or a folder of tokenizer files, without a model.

    Raises:
        UserError: there is no fast tokenizer, it has no EOS token, or transformers cannot read the model's config.json.
    """
    tokenizer = own_tokenizer(model, needs_model=needs_model)
    notices = [set_pad_token(tokenizer), _ignored_revision(model), *add_new_tokens(tokenizer, model.new_tokens)]
    return LoadedTokenizer(tokenizer, tuple(notice for notice in notices if notice))


def own_tokenizer(model: ModelSection, *, needs_model: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model as it was saved; see `load_tokenizer`."""
    name, revision = (None if needs_model else _lone_tokenizer(model)), None
    if name is None:
        name, revision = _tokenizer_of_model(model)
    tokenizer = read_tokenizer(name, revision=revision, trust_remote_code=model.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer_name_or_path: the tokenizer of {name} has no EOS token, so no answer could end; "
            "set eos_token in its tokenizer_config.json"
        )
    return tokenizer


def add_new_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Add texts as tokens: each is one token wherever it stands, in a template, a question or an answer.

    They are ordinary added tokens and no special ones: decoding shows them, and a row's own text may write them,
    whatever `content_control_tokens` says of control tokens, for it is from there that they are learned.

    Returns:
        A notice of each that was a token before.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    # Normalizing would turn "<tool>" into "\u2581<tool>" in a tokenizer of Llama 2's kind, found after a space alone.
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in texts if text not in known])
    return [
        f"new_tokens: {text} is token {known[text]} already and gets no row of its own"
        for text in texts
        if text in known
    ]


def new_token_parts(model: ModelSection, tokenizer: PreTrainedTokenizerBase) -> dict[int, list[int]]:
    """The tokens that a config adds to a model.

    Args:
        tokenizer: from `load_tokenizer`.

    Returns:
        Id of each -> ids that its text has in the tokenizer as it was saved.
    """
    if not model.new_tokens:
        return {}
    before, ids = own_tokenizer(model), tokenizer.get_vocab()
    return {
        ids[text]: before.encode(text, add_special_tokens=False)
        for text in model.new_tokens
        if text not in before.get_vocab()
    }


def _lone_tokenizer(model: ModelSection) -> str | None:
    """A tokenizer that can be loaded without looking at a model; None where the model says which."""
    if model.tokenizer_name_or_path is not None:
        return model.tokenizer_name_or_path
    folder = Path(model.model_name_or_path).expanduser()
    has_model = any((folder / name).is_file() for name in (CONFIG_FILE, ADAPTER_FILE))
    return str(folder) if (folder / "tokenizer.json").is_file() and not has_model else None


def _tokenizer_of_model(model: ModelSection) -> tuple[str, str | None]:
    """Name and revision of the tokenizer that goes with a model."""
    source = find_model(model)
    # transformers reads it for the tokenizer too, and would blame the tokenizer.
    load_config(source, trust_remote_code=model.trust_remote_code)
    if model.tokenizer_name_or_path is not None:
        return model.tokenizer_name_or_path, None
    if source.adapter and has_file(source.adapter, "tokenizer_config.json", revision=source.adapter_revision):
        return source.adapter, source.adapter_revision
    return source.base, source.base_revision


def read_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer as it is.

    Raises:
        UserError: there is none, or its files are damaged.
    """
    from transformers import AutoTokenizer

    subject = f"tokenizer_name_or_path: no tokenizer can be loaded from {name}"
    with TokenizerFileErrors(subject, "name a folder or hub id with tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer_name_or_path: {name} has no fast tokenizer (tokenizer.json); name one that has")
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise UserError(
            f"tokenizer_name_or_path: model_max_length of {name} is {tokenizer.model_max_length!r}; "
            "set a number in its tokenizer_config.json"
        )
    return tokenizer


def _ignored_revision(model: ModelSection) -> str | None:
    if model.model_revision is None or not Path(model.model_name_or_path).expanduser().is_dir():
        return None
    return f"model_revision: {model.model_revision} is ignored; {model.model_name_or_path} is a local folder"


def set_pad_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Give a tokenizer without pad token one: a token it reserves for this, else EOS (padding is masked by length).

    Returns:
        A notice of what was set, None where nothing was.
    """
    if tokenizer.pad_token_id is not None:
        return None
    vocabulary = tokenizer.get_vocab()
    reserved = next((token for token in RESERVED_PAD_TOKENS if token in vocabulary), None)
    tokenizer.pad_token = reserved or tokenizer.eos_token
    if reserved:
        return f"the tokenizer has no pad token; its unused {reserved} pads"
    return (
        f"the tokenizer has no pad token; EOS ({tokenizer.eos_token}) pads, which is safe: padding is masked by length"
    )

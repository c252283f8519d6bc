"""Loading of tokenizers, and which token pads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.config.schema import ModelSection
from component.models.model_files import find_model, has_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that published tokenizers reserve for padding without naming them as their pad token.
RESERVED_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<PAD>", "<|pad|>", "<|PAD_TOKEN|>")


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer with a pad token, and what was set on it."""

    tokenizer: PreTrainedTokenizerBase
    notices: tuple[str, ...] = ()


def load_tokenizer(model: ModelSection) -> LoadedTokenizer:
    """Load the tokenizer of a model. Imports transformers: where Unsloth was chosen, it must be imported before.

    An adapter folder that has a tokenizer of its own (a run folder does) is preferred to its base.

    Raises:
        UserError: there is no fast tokenizer, or it has no EOS token.
    """
    if model.tokenizer_name_or_path is not None:
        name, revision = model.tokenizer_name_or_path, None
    else:
        source = find_model(model)
        name, revision = source.base, source.base_revision
        if source.adapter and has_file(source.adapter, "tokenizer_config.json", revision=source.adapter_revision):
            name, revision = source.adapter, source.adapter_revision
    tokenizer = read_tokenizer(name, revision=revision, trust_remote_code=model.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer_name_or_path: the tokenizer of {name} has no EOS token, so no answer could end; "
            "set eos_token in its tokenizer_config.json"
        )
    notice = set_pad_token(tokenizer)
    return LoadedTokenizer(tokenizer, (notice,) if notice else ())


def read_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer as it is.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"tokenizer_name_or_path: no tokenizer can be loaded from {name}: {str(error).splitlines()[0]}; "
            "name a folder or hub id with tokenizer.json"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer_name_or_path: {name} has no fast tokenizer (tokenizer.json); name one that has")
    return tokenizer


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

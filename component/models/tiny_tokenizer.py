"""A byte-level BPE tokenizer trained on given texts, with control tokens and a chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from component.config.errors import DataError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# Every turn ends in the token that also ends a text, so generation stops where a turn does.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def read_texts(files: Sequence[Path]) -> Iterator[str]:
    """Yield the texts of files: every string value of .json and .jsonl files, the lines of any other.

    Raises:
        DataError: a file is missing or is not valid JSON.
    """
    for file in files:
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file.absolute()}: cannot be read: {error}; name a UTF-8 text file") from error
        if file.suffix not in (".json", ".jsonl"):
            yield from content.splitlines()
            continue
        records = content.splitlines() if file.suffix == ".jsonl" else [content]
        for line, record in enumerate(records, start=1):
            if not record.strip():
                continue
            try:
                yield from _strings(json.loads(record))
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{line}: not valid JSON: {error.msg}; mend or remove the line") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _strings(child)


def build_tokenizer(
    texts: Iterator[str], *, vocab_size: int, model_max_length: int, pad_is_eos: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with control tokens and a chat template.

    Args:
        texts: what to learn merges from; few texts give fewer tokens than vocab_size.
        vocab_size: the most tokens, control tokens and the 256 bytes included.
        model_max_length: number of tokens that the model can take.
        pad_is_eos: use the end token for padding too, as many published tokenizers do.

    Raises:
        UserError: vocab_size has no room for the bytes and the control tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    control_tokens = [BOS, EOS, *ROLE_TOKENS] + ([] if pad_is_eos else [PAD])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + len(control_tokens):
        raise UserError(f"vocab_size: got {vocab_size}; use {len(alphabet) + len(control_tokens)} or more")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=control_tokens, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    bos_id = backend.token_to_id(BOS)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, bos_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS if pad_is_eos else PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )

"""Control tokens that a message's own text spells out: found, and encoded as the plain text that they are there."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from component.data.batch_encoding import BatchEncoder, TokenizedText
from component.data.rows import Message, RowError
from component.data.traced_text import GENERATED, TEMPLATE, TracedText, message_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Stand for a control token while a text is encoded: one character of its own, and others up to the token's length, so
# that every character keeps its place. Private use characters beyond those that anybody has a use for.
_FIRST_ALIAS = 0xF8000
_FILLER = "\U000fff00"
_OF_TEMPLATE = TEMPLATE + chr(GENERATED)


class ControlTokens:
    """The control tokens of a tokenizer: those added tokens that it marks as special.

    Args:
        tokenizer: a fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens = {token.content: (token, id) for id, token in tokenizer.added_tokens_decoder.items()}
        self._tokens = {text: (token, id) for text, (token, id) in self._tokens.items() if token.special and text}
        self._pattern = re.compile(either(self._tokens) if self._tokens else r"(?!)")
        by_letter = [list(group) for _, group in itertools.groupby(sorted(self._tokens), key=lambda token: token[0])]
        self._by_beginning = [(os.path.commonprefix(group), re.compile(either(group))) for group in by_letter]
        self._aliases = {
            text: chr(_FIRST_ALIAS + number) + _FILLER * (len(text) - 1) for number, text in enumerate(self._tokens)
        }
        self._of_aliases = re.compile(f"[{chr(_FIRST_ALIAS)}-{chr(_FIRST_ALIAS + len(self._tokens))}{_FILLER}]")

    def find_any(self, text: str) -> str | None:
        """A control token that a text spells out, None where there is none; about a microsecond a kilobyte."""
        for beginning, pattern in self._by_beginning:
            if beginning in text and (match := pattern.search(text)):
                return match.group()
        return None

    def find_in_content(self, text: TracedText) -> list[tuple[int | None, str]]:
        """(message index, control token) for each place of `text` where the row spells one out; no index: in tools."""
        found = []
        for match in self._pattern.finditer(text.plain()):
            own = text.origin[match.start() : match.end()].strip(_OF_TEMPLATE)
            if own:
                found.append((message_of(own[0]), match.group()))
        return found

    def of_template(self, text: TracedText) -> list[str]:
        """The control tokens in `text` that the template wrote, in their order."""
        matches = self._pattern.finditer(text.plain())
        return [match.group() for match in matches if not text.origin[slice(*match.span())].strip(_OF_TEMPLATE)]

    def are_in(self, value: Any) -> bool:
        """Whether a text within a JSON-like value spells out a control token."""
        return self.without(value) != value

    def without(self, value: Any) -> Any:
        """A copy of a JSON-like value, or of a message, in which each control token has another first character."""
        if isinstance(value, str):
            while self._pattern.search(value):
                value = self._pattern.sub(lambda match: "z" + match.group()[1:], value)
            return value
        if isinstance(value, Mapping):
            return {key: self.without(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.without(item) for item in value)
        if isinstance(value, Message):
            fields = ("content", "reasoning_content", "tool_calls", "tool_call_id", "name")
            return replace(value, **{field: self.without(getattr(value, field)) for field in fields})
        return value

    def with_aliases(self, text: TracedText) -> str:
        """`text`, as long as before, with an alias for each control token that the template wrote.

        Raises:
            RowError: it holds characters of aliases itself, and so could write control tokens.
        """
        if self._of_aliases.search(text.plain()):
            raise RowError(
                "control token in content: beside it are private-use characters that stand for control tokens"
            )
        pieces, position = [], 0
        for match in self._pattern.finditer(text.plain()):
            if not text.origin[match.start() : match.end()].strip(_OF_TEMPLATE):
                pieces += (text.plain(position, match.start()), self._aliases[match.group()])
                position = match.end()
        return "".join((*pieces, text.plain(position)))

    def encode_aliased(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Encode texts whose aliases are the only control tokens, each as one whole text."""
        return self._aliasing_encoder.encode(texts)

    @cached_property
    def _aliasing_encoder(self) -> BatchEncoder:
        """Takes every control token for text, and every alias for the control token that it stands for."""
        copy = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        copy.add_tokens(
            [
                AddedToken(
                    self._aliases[text],
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=False,
                )
                for text, (token, _) in self._tokens.items()
            ]
        )
        own_ids = {copy.token_to_id(self._aliases[text]): id for text, (_, id) in self._tokens.items()}
        return BatchEncoder(copy, split_special_tokens=True, own_ids=own_ids)


def either(texts: Iterable[str]) -> str:
    """A pattern of the longest of several texts that stands at a place.

    It has each common beginning once: with `ab|ac|ad` a thousand tokens would be tried in turn wherever an `a` stands.
    """
    by_letter = {
        letter: [text[1:] for text in group]
        for letter, group in itertools.groupby(sorted(filter(None, texts)), key=lambda text: text[0])
    }
    branches = []
    for letter, rests in by_letter.items():
        is_end = "" in rests
        rest = either(rests) if any(rests) else ""
        branches.append(re.escape(letter) + (f"(?:{rest})?" if rest and is_end else rest))
    return f"(?:{'|'.join(branches)})" if len(branches) > 1 else branches[0]

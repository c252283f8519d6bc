"""The canonical types of the data path: what a format makes of a record, and what rendering makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class RowError(Exception):
    """A record that cannot be used; the message is the reason, without its place."""


@dataclass(frozen=True)
class Source:
    """Where a record came from: a file and its line from 1 (for a JSON array, the line on which the record begins)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Failure:
    """A row that was dropped, and why. A reason reads `category: detail`, or is the category alone."""

    source: Source
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True)
class Message:
    """One turn. `role` is system, user, assistant or tool; the optional fields are those of the OpenAI chat format.

    Attributes:
        weight: 0 for an answer that is context and not trained on.
    """

    role: str
    content: str
    reasoning_content: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: int = 1

    def as_template_message(self) -> dict[str, Any]:
        """The mapping that chat templates are written for, without the fields that are absent."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        for key in ("reasoning_content", "tool_call_id", "name"):
            value = getattr(self, key)
            if value is not None:
                message[key] = value
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        return message


@dataclass(frozen=True)
class Segment:
    """A piece of text, and whether its tokens are trained on."""

    text: str
    supervised: bool


@dataclass(frozen=True)
class Row:
    """One record in canonical form: a conversation (`messages`), plain text (`text`) or pieces of text (`segments`).

    A preference holds the prompt in `messages`, or in `text` where it is plain text, and the two answers to it. A
    row with a label is a whole conversation, or prompt and completion as segments.

    Attributes:
        segments: text that no template is put around, piece by piece.
        ends_with_eos: whether the segments are followed by the EOS token, since nobody could write it into them.
        chosen, rejected: the better and the worse answer, as messages, or as text after a plain-text prompt.
        label: whether the answer is one to learn from or one to avoid.
        columns: what the record holds beside what its format reads.
        notices: what was ignored or is odd in this record, in words that are the same for every record like it.
    """

    source: Source
    messages: tuple[Message, ...] = ()
    text: str | None = None
    segments: tuple[Segment, ...] = ()
    ends_with_eos: bool = False
    chosen: tuple[Message, ...] | str | None = None
    rejected: tuple[Message, ...] | str | None = None
    label: bool | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """One training sample.

    Attributes:
        input_ids: token ids, without padding.
        spans: half-open token ranges [start, end) that are supervised, ascending and disjoint.
        source: the row it came from.
        text: what the ids encode; None unless the encoder keeps it.
        label: of a labelled row.
        columns: of a prompt, as JSON-ready values; rewards read them.
    """

    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    source: Source
    text: str | None = None
    label: bool | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)

    @property
    def num_tokens(self) -> int:
        """Number of tokens, as for a pair."""
        return len(self.input_ids)

    @property
    def num_supervised_tokens(self) -> int:
        """Number of tokens that the loss counts; nothing predicts the first one."""
        return sum(end - max(start, 1) for start, end in self.spans)

    def labels(self) -> list[int]:
        """Token ids where supervised and -100 elsewhere, also for the first token."""
        labels = [-100] * len(self.input_ids)
        for start, end in self.spans:
            start = max(start, 1)
            labels[start:end] = self.input_ids[start:end]
        return labels


@dataclass(frozen=True)
class PreparedPair:
    """A prompt with the better and with the worse answer to it; both begin with the same prompt tokens."""

    chosen: Prepared
    rejected: Prepared

    @property
    def source(self) -> Source:
        """The row it came from."""
        return self.chosen.source

    @property
    def length(self) -> int:
        """Number of tokens of the longer one."""
        return max(self.chosen.length, self.rejected.length)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of both."""
        return self.chosen.length + self.rejected.length

    @property
    def num_supervised_tokens(self) -> int:
        """Number of tokens of both answers that can be learned."""
        return self.chosen.num_supervised_tokens + self.rejected.num_supervised_tokens


@dataclass(frozen=True)
class EncodedRow:
    """What encoding made of a row.

    Attributes:
        samples: one, or the pieces of a row that was split.
        num_tokens_cut: tokens that truncation cut off.
        is_without_stop: whether an answer lost its stop token by that.
        notices: what is odd about it, in words that are the same for every row like it.
    """

    samples: tuple[Prepared | PreparedPair, ...]
    num_tokens_cut: int = 0
    is_without_stop: bool = False
    notices: tuple[str, ...] = ()

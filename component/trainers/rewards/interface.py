"""What a reward is given and what a named one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from component.config.errors import UserError
from component.data.rows import Source

#: A prompt or a completion: text, or messages where the row has messages.
Turns = str | list[dict[str, Any]]


class RewardError(UserError):
    """A reward failed, or gave what is no reward: the user's own program or data must change."""


@dataclass(frozen=True)
class Completion:
    """A completion and the row that it answers.

    Attributes:
        text: what was sampled, decoded without control tokens.
        token_ids: the same, with the stop token where there is one.
        prompt: of the row; messages where the row has messages.
        columns: of the row, those of the prompt aside.
        source: of the row.
    """

    text: str
    token_ids: Sequence[int]
    prompt: Turns
    columns: Mapping[str, Any]
    source: Source

    @property
    def turns(self) -> Turns:
        """The completion in the form of its prompt: text, or one message of the assistant."""
        return self.text if isinstance(self.prompt, str) else [{"role": "assistant", "content": self.text}]


class NamedReward(Protocol):
    """A reward that a config names: a frozen dataclass whose fields are its `reward_arguments`.

    Raises:
        ValueError: when it is built, for arguments that do not fit; the message says what to write.
    """

    @property
    def column(self) -> str | None:
        """The column of a row that it reads; None where it reads none."""
        ...

    def __call__(self, completion: Completion) -> float:
        """The reward of one completion.

        Raises:
            ValueError: the row's column does not hold what the reward reads; the message says what is wrong.
        """
        ...

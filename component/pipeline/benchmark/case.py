"""A case of a suite: a child process with its settings, the model and the rows that it trains on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TRAIN = "train.py"
BARE_LOOP = "script/baselines/bare_loop.py"
UNSLOTH_TRAINER = "script/baselines/unsloth_trainer.py"


@dataclass(frozen=True)
class Rows:
    """Rows of one turn, made on the spot.

    Attributes:
        kind: "chat" has log-normal lengths, "full" rows of max_tokens or more.
        mean_tokens: of chat rows, what the chat template adds included.
    """

    kind: Literal["chat", "full"]
    num_rows: int
    max_tokens: int
    mean_tokens: int = 330


def file_name(text: str) -> str:
    """A name of a model or a case as one of a file."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


@dataclass(frozen=True)
class Case:
    """A line of a suite's table.

    Attributes:
        name: as the table shows it.
        program: train.py, or a script of script/baselines/ that takes the same keys.
        settings: keys of train_args, places aside; a baseline reads those that it knows.
        environment: variables of the child.
        model: name of a shape with random weights, or a folder with a checkpoint.
        warm_up: steps that come first and are not timed.
        evaluation: rows to evaluate on, None for no evaluation.
    """

    name: str
    program: str
    settings: Mapping[str, Any]
    model: str
    rows: Rows
    warm_up: int
    environment: Mapping[str, str] = field(default_factory=dict)
    evaluation: Rows | None = None

    def identity(self) -> dict[str, Any]:
        """All that its result depends on, the machine and the code aside; its name does not count."""
        return {
            "program": self.program,
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "model": self.model,
            "rows": vars(self.rows),
            "warm_up": self.warm_up,
            **({"evaluation": vars(self.evaluation)} if self.evaluation else {}),
        }

    @property
    def key(self) -> str:
        """The identity as one text, whatever the order of its keys."""
        return json.dumps(self.identity(), sort_keys=True)

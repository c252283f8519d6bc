"""What a data format is, and how one is loaded by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from component.data.rows import Row, Source
from component.registry import FORMATS

#: Kind of row -> the training types that read it, for messages.
KIND_TASKS = {
    "messages": "sft",
    "text": "pretrain",
    "preference": "dpo, orpo, cpo or reward",
    "labelled": "kto",
    "prompt": "grpo",
}
#: Kinds whose files hold answers that are not to be learned from, whatever else their rows look like.
GUARDED_KINDS = ("preference", "labelled")


class Format(Protocol):
    """Maps the records of a file to rows.

    A plugin's own format is one class with these three members, registered by name:

        @FORMATS.register("quiz")
        class Quiz:
            row_kind = "messages"

            @staticmethod
            def looks_like(record):
                return "quiz" in record

            @staticmethod
            def parse(record, source):
                question, answer = record["quiz"]
                return Row(source, messages=(Message("user", question), Message("assistant", answer)))

    Attributes:
        row_kind: "messages" for conversations and other rows of sft, "text" for plain text, "preference",
            "labelled", "prompt".
        keys: the keys that it reads, for the check of a `columns` mapping; optional, and empty where any may be read.
    """

    row_kind: str

    def looks_like(self, record: Mapping[str, Any]) -> bool:
        """Whether a record seems to be of this format, judged by its keys alone."""
        ...

    def parse(self, record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: the record cannot be used; the message is the reason.
        """
        ...


def keys_of(row_format: Format) -> tuple[str, ...]:
    """The keys that a format reads; empty where it does not say or reads any."""
    return tuple(getattr(row_format, "keys", ()))


def load_format(name: str) -> Format:
    """Return the format of that name, shipped or a plugin's.

    Raises:
        KeyError: there is none.
    """
    component = FORMATS.get(name)
    return component() if isinstance(component, type) else component


def each_format() -> Iterator[tuple[str, Format]]:
    """Every format that exists, with its name."""
    for name in FORMATS.names():
        yield name, load_format(name)

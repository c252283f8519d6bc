"""Rewards of the form of a completion: its pattern, its length, valid JSON, a code fence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from component.config.errors import MachineError
from component.trainers.rewards.interface import Completion

#: A reasoning in think tags, then an answer.
THINK_THEN_ANSWER = r"<think>(?:(?!</?think>).)*</think>\s*(?:(?!</?think>).)*\S"
#: A fenced block as Markdown has it: its language and its content.
FENCE = re.compile(r"^```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Format:
    """1 where the whole completion matches a regular expression, white space at both ends aside; else 0.

    Attributes:
        pattern: in Python's syntax; a dot also matches line breaks.
    """

    pattern: str = THINK_THEN_ANSWER
    column: None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}; mend it") from None

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        return float(re.fullmatch(self.pattern, completion.text.strip(), re.DOTALL) is not None)


@dataclass(frozen=True)
class Length:
    """1 for a completion of min_tokens to max_tokens; else how near it comes: 0.5 at half the least, or twice the most.

    Attributes:
        min_tokens, max_tokens: in tokens, the stop token included.
    """

    min_tokens: int = 1
    max_tokens: int = 256
    column: None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} and max_tokens {self.max_tokens} are no range; "
                "use 1 or more, and no more than max_tokens"
            )

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        num_tokens = len(completion.token_ids)
        return min(1.0, num_tokens / self.min_tokens, self.max_tokens / num_tokens) if num_tokens else 0.0


@dataclass(frozen=True)
class JSONSchema:
    """1 where the completion is JSON that a schema accepts (https://json-schema.org), fenced or not; else 0.

    Attributes:
        schema: for all rows; where it is left out, each row has its own.
        schema_column: of the row, with its schema: a mapping, or JSON text of one.
    """

    schema: dict[str, Any] | None = None
    schema_column: str = "schema"

    def __post_init__(self) -> None:
        if self.schema is not None:
            _validator(self.schema)

    @property
    def column(self) -> str | None:
        """See `NamedReward`."""
        return self.schema_column if self.schema is None else None

    @cached_property
    def _shared(self) -> Any:
        return _validator(self.schema)

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        if self.schema is not None:
            validator = self._shared
        else:
            try:
                validator = _validator(completion.columns[self.schema_column])
            except ValueError as error:
                raise ValueError(f"column {self.schema_column}: {error}") from None
        fenced = FENCE.fullmatch(completion.text.strip())
        try:
            value = json.loads(fenced[2] if fenced else completion.text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return 0.0
        try:
            return float(validator.is_valid(value))
        except (RecursionError, OverflowError):  # of the completion: nested, or with numbers, beyond all use
            return 0.0


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _validator(schema: Any) -> Any:
    """A validator of the schema.

    Raises:
        ValueError: it is no schema.
        MachineError: the package jsonschema is not installed.
    """
    try:
        import jsonschema
        import referencing.jsonschema
    except ImportError:
        raise MachineError(
            "reward_functions: json_schema needs the package jsonschema; pip install jsonschema"
        ) from None
    schema = json.loads(schema) if isinstance(schema, str) else schema
    if not isinstance(schema, Mapping):
        raise ValueError("is no JSON Schema: a schema is a mapping; mend it")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message}; mend it") from None
    # A registry of the schema alone fetches nothing: a reference leads to a place in the schema itself, or nowhere.
    own = referencing.Resource.from_contents(schema, default_specification=referencing.jsonschema.DRAFT202012)
    resolver = referencing.Registry().with_resource("", own).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (referencing.exceptions.Unresolvable, ValueError):
            raise ValueError(f'"$ref": "{reference}" leads to no place in the schema; mend it') from None
    return kind(schema, registry=referencing.Registry())


def _references(schema: Any) -> Iterator[str]:
    """The targets of all references in a schema."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


@dataclass(frozen=True)
class CodeFence:
    """1 where the completion holds exactly one fenced block of code that is not empty; else 0.

    Attributes:
        language: that stands behind the opening fence; None takes any, and none.
    """

    language: str | None = None
    column: None = None

    def __call__(self, completion: Completion) -> float:
        """See `NamedReward`."""
        blocks = FENCE.findall(completion.text)
        if len(blocks) != 1 or completion.text.count("```") != 2 or not blocks[0][1].strip():
            return 0.0
        return float(self.language is None or blocks[0][0].casefold() == self.language.casefold())

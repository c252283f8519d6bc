"""A reward as the trainer calls it: on a batch of completions, its answer checked."""

from __future__ import annotations

import asyncio
import copy
import decimal
import inspect
import math
import numbers
import reprlib
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from component.trainers.rewards.interface import Completion, NamedReward, RewardError

#: What functions of the user's own are given beside the columns of the rows, under TRL's names.
GIVEN = ("prompts", "completions", "completion_ids")
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
#: Rewards are summed and squared in float32.
LARGEST = 1e12


class Reward(Protocol):
    """A reward with its name.

    Attributes:
        name: as the config writes it.
    """

    name: str

    def score(self, completions: Sequence[Completion]) -> list[float | None]:
        """One reward for each completion; None where the reward does not apply.

        Raises:
            RewardError: naming reward and row.
        """
        ...

    def check_columns(self, completions: Iterable[Completion]) -> None:
        """Hold what the reward reads against the rows; nothing is sampled yet.

        Raises:
            RewardError: naming reward, column and row.
        """
        ...


@dataclass(frozen=True)
class Named:
    """A named reward, completion by completion."""

    name: str
    reward: NamedReward

    def score(self, completions: Sequence[Completion]) -> list[float | None]:
        """See `Reward`."""
        return [self._one(completion) for completion in completions]

    def check_columns(self, completions: Iterable[Completion]) -> None:
        """See `Reward`."""
        for completion in completions:
            column = self.reward.column
            if column is not None and completion.columns.get(column) is None:
                raise RewardError(
                    f"reward_functions: {self.name} reads the column {column}, which {completion.source} does not "
                    f"have; add it, or name another in reward_arguments: {{{self.name}: ...}}"
                )
            self._one(completion)

    def _one(self, completion: Completion) -> float:
        try:
            return self.reward(completion)
        except ValueError as error:
            what = f"reward_functions: {self.name}: {completion.source}: {error}"
            raise RewardError(f"{what}; mend the row") from None


@dataclass(frozen=True)
class OwnFunction:
    """A function of the user's own: `(prompts, completions, completion_ids, <columns>) -> list of numbers`.

    It is called as TRL calls one, and given those arguments alone that it names, or all where it has **kwargs.
    Prompts and completions are texts, or lists of messages where the rows have messages.

    Attributes:
        file: of the function, for messages.
    """

    name: str
    function: Callable[..., Any]
    file: str

    def score(self, completions: Sequence[Completion]) -> list[float | None]:
        """See `Reward`."""
        try:
            values = self.function(**self._arguments(completions))
            if inspect.iscoroutine(values):
                values = _result_of(values)
            is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | dict | set | frozenset)
            items = list(values) if is_list else []
        except (Exception, SystemExit) as error:  # the user's program: whatever it raises is theirs to mend
            raise self._failed(completions, self._describe(error)) from error
        if not is_list:
            raise self._failed(completions, f"returned {_shown(values)}, not a list of numbers")
        return [self._number(value, completion) for value, completion in self._pairs(items, completions)]

    def check_columns(self, completions: Iterable[Completion]) -> None:
        """See `Reward`."""
        parameters = self._parameters()
        for completion in completions:
            reserved = [name for name in GIVEN if name in completion.columns and name in parameters]
            if reserved:
                what = f"{self.name} is given the {reserved[0]} of sampling, and {completion.source} has such a column"
                raise RewardError(f"reward_functions: {what}; rename the column")
            for name, parameter in parameters.items():
                if not _is_wanted(parameter) or name in GIVEN or name in completion.columns:
                    continue
                columns = ", ".join(completion.columns) or "no column"
                raise RewardError(
                    f"reward_functions: {self.name} wants {name!r}, which {completion.source} does not have "
                    f"(it has {columns}); add the column, or give the parameter a default"
                )

    def _arguments(self, completions: Sequence[Completion]) -> dict[str, list[Any]]:
        # Copies: what a function does to its arguments is not seen by the next one.
        arguments: dict[str, list[Any]] = {
            "prompts": [copy.deepcopy(completion.prompt) for completion in completions],
            "completions": [completion.turns for completion in completions],
            "completion_ids": [list(completion.token_ids) for completion in completions],
        }
        columns = dict.fromkeys(name for completion in completions for name in completion.columns)
        for name in columns:
            if name not in GIVEN:
                arguments[name] = [copy.deepcopy(completion.columns.get(name)) for completion in completions]
        parameters = self._parameters()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return arguments
        return {name: value for name, value in arguments.items() if name in parameters}

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            return inspect.signature(self.function).parameters
        except (ValueError, TypeError):
            what = f"reward_functions: {self.name} has no signature that says what it wants"
            raise RewardError(f"{what}; write a function of your own around it") from None

    def _pairs(self, values: list[Any], completions: Sequence[Completion]) -> Iterable[tuple[Any, Completion]]:
        if len(values) != len(completions):
            raise self._failed(
                completions, f"returned {len(values)} rewards for {len(completions)} completions; return one for each"
            )
        return zip(values, completions, strict=True)

    def _number(self, value: Any, completion: Completion) -> float | None:
        if value is None:
            return None
        try:
            number = float(value.item() if hasattr(value, "item") else value)
            is_number = isinstance(value, numbers.Real | decimal.Decimal) or hasattr(value, "item")
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number, is_number = math.nan, False
        if not is_number or not abs(number) <= LARGEST:
            what = f"returned {_shown(value)} for a completion, which is no finite number below {LARGEST:g}"
            raise self._failed([completion], what)
        return number

    def _failed(self, completions: Sequence[Completion], what: str) -> RewardError:
        rows = list(dict.fromkeys(str(completion.source) for completion in completions))
        more = f" and {len(rows) - 1} more rows" if len(rows) > 1 else ""
        return RewardError(f"reward_functions: {self.name}: {rows[0]}{more}: {what}; mend the function")

    def _describe(self, error: BaseException) -> str:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        line = f" in line {frames[-1].lineno}" if frames else ""
        return f"raised {type(error).__name__}{line}: {' '.join(str(error).split())}"


def _is_wanted(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, also where an event loop runs already, as in a notebook."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _shown(value: Any) -> str:
    """A value of the user's own in a few words, whatever its repr does."""
    try:
        return " ".join(_REPR.repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        return f"a huge {type(value).__name__}"

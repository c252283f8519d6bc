"""The rewards of a run, by the names of the config, and what can be said of them before anything is sampled."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from component.config.coerce import CoercionError, coerce
from component.config.errors import UserError
from component.config.plugins import PluginError, execute_file
from component.config.schema import GRPOSection
from component.data.rows import Prepared
from component.registry import REWARDS
from component.trainers.rewards.interface import Completion, NamedReward
from component.trainers.rewards.reward import Named, OwnFunction, Reward


def load_rewards(grpo: GRPOSection) -> tuple[Reward, ...]:
    """Load what `reward_functions` names, in its order.

    Raises:
        UserError: there is no such reward, its arguments do not fit, or its file cannot be executed.
    """
    unread = sorted(set(grpo.reward_arguments) - set(grpo.reward_functions))
    if unread:
        raise UserError(f"reward_arguments: {unread[0]} is not among the reward_functions; add it there, or drop it")
    return tuple(_load(name, grpo.reward_arguments.get(name)) for name in grpo.reward_functions)


def _load(name: str, arguments: Any) -> Reward:
    if name in REWARDS.names():
        return Named(name, _build(name, REWARDS.get(name), arguments))
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UserError(
            f'reward_functions: there is no reward "{name}"; use {", ".join(REWARDS.names())}, '
            "or a function of your own as rewards.py:my_reward"
        )
    if arguments is not None:
        raise UserError(f"reward_arguments: {name} is a function of your own; give its parameters defaults there")
    path = Path(file).expanduser().resolve()
    try:
        found = getattr(execute_file(str(path), again_if_changed=True), function, None)
    except PluginError as error:
        raise UserError(f"reward_functions: {error}; {error.fix}") from error
    if not callable(found):
        raise UserError(f"reward_functions: {file} has no function {function}; correct the name")
    return OwnFunction(name, found, str(path))


def _build(name: str, kind: Any, arguments: Any) -> NamedReward:
    """Build a named reward with its arguments, each of the type that its field has."""
    if not isinstance(arguments, Mapping | None):
        raise UserError(f"reward_arguments: {name}: expected a mapping; write {{{name}: {{argument: value}}}}")
    fields = {item.name for item in dataclasses.fields(kind)} - {"column"} | _own_column(kind)
    unknown = sorted(set(arguments or {}) - fields)
    if unknown:
        known = ", ".join(sorted(fields))
        raise UserError(f"reward_arguments: {name} has no argument {unknown[0]}; use {known}")
    hints = get_type_hints(kind)
    try:
        return kind(**{key: coerce(value, hints[key]) for key, value in (arguments or {}).items()})
    except CoercionError as error:
        raise UserError(f"reward_arguments: {name}: {error}") from error
    except ValueError as error:
        raise UserError(f"reward_arguments: {name}: {error}") from error


def _own_column(kind: Any) -> set[str]:
    """`column`, where a reward lets it be chosen."""
    return {item.name for item in dataclasses.fields(kind) if item.name == "column" and item.default is not None}


def check_rewards(rewards: Iterable[Reward], prompts: Iterable[Prepared]) -> None:
    """Try rewards before a model is loaded: their columns on every row, and each once, on an empty completion.

    Raises:
        RewardError: naming reward and row.
    """
    completions = [completion_of(prompt, text="", token_ids=()) for prompt in prompts]
    for reward in rewards if completions else ():
        reward.check_columns(completions)
        reward.score(completions[:1])


def completion_of(prompt: Prepared, *, text: str, token_ids: Iterable[int]) -> Completion:
    """A completion of a prepared prompt."""
    columns = {name: value for name, value in prompt.columns.items() if name != "prompt"}
    return Completion(text, tuple(token_ids), prompt.columns["prompt"], columns, prompt.source)


def reward_hashes(rewards: Iterable[Reward]) -> dict[str, str]:
    """Name -> SHA-256 of the file of each reward that is the user's own, for run.json."""
    return {
        reward.name: hashlib.sha256(Path(reward.file).read_bytes()).hexdigest()
        for reward in rewards
        if isinstance(reward, OwnFunction)
    }

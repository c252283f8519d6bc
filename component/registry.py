"""Names of everything that can be chosen in a config, and where each is built.

The tables here hold names and import paths only: `--check` can list every choice without importing torch.
A plugin adds its own entries with the same decorator:

    from component.registry import FORMATS

    @FORMATS.register("my_format")
    class MyFormat: ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Component = TypeVar("Component")


class Registry:
    """A table from a name to a component that is imported when it is first asked for.

    Args:
        kind: what the entries are, in the singular, for messages ("task").
        entries: name -> "module:attribute".
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries)

    def register(self, name: str) -> Callable[[Component], Component]:
        """Return a decorator that adds a component under `name`.

        Raises:
            ValueError: the name is taken, by a shipped component or by another plugin.
        """

        def add(component: Component) -> Component:
            """Enter the component under its name."""
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} exists already; choose another name")
            self._entries[name] = component
            return component

        return add

    def get(self, name: str) -> Any:
        """Return the component called `name`, importing it if needed.

        Raises:
            KeyError: no component of that name; configs are checked against `names()` before this.
        """
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(importlib.import_module(module), attribute)
            self._entries[name] = entry
        return entry

    def names(self) -> tuple[str, ...]:
        """All names a config may use."""
        return tuple(self._entries)


TASKS = Registry(
    "task",
    {
        "pretrain": "component.trainers.pretrain:PRETRAIN",
        "sft": "component.trainers.sft:SFT",
        "dpo": "component.trainers.dpo:DPO",
        "orpo": "component.trainers.orpo:ORPO",
        "cpo": "component.trainers.cpo:CPO",
        "kto": "component.trainers.kto:KTO",
        "reward": "component.trainers.reward:REWARD",
        "grpo": "component.trainers.grpo:GRPO",
    },
)

#: Training type -> the kind of rows that it reads; a plugin's task says it itself.
TASK_ROW_KINDS = {
    "pretrain": "text",
    "sft": "messages",
    "dpo": "preference",
    "orpo": "preference",
    "cpo": "preference",
    "kto": "labelled",
    "reward": "preference",
    "grpo": "prompt",
}


def row_kind_of(task_type: str) -> str:
    """The kind of rows that a training type reads; a shipped one is not imported for it."""
    return TASK_ROW_KINDS.get(task_type) or TASKS.get(task_type).row_kind


#: Kind of rows -> what `truncation` may be for rows that are too long; documents are always split.
TRUNCATIONS = {
    "messages": ("drop", "keep_start", "keep_end", "error", "split_turns"),
    "preference": ("drop", "keep_start", "keep_end", "error"),
    "labelled": ("drop", "keep_start", "keep_end", "error"),
    "prompt": ("drop", "keep_end", "error"),
}

LOADERS = Registry(
    "loader",
    {"vanilla": "component.models.vanilla:load_vanilla", "unsloth": "component.models.unsloth:load_unsloth"},
)

FORMATS = Registry(
    "data format",
    {
        "firefly": "component.data.formats.firefly:Firefly",
        "alpaca": "component.data.formats.alpaca:Alpaca",
        "sharegpt": "component.data.formats.sharegpt:ShareGPT",
        "openai": "component.data.formats.openai:OpenAI",
        "qa": "component.data.formats.qa:QA",
        "prompt_completion": "component.data.formats.prompt_completion:PromptCompletion",
        "segments": "component.data.formats.segments:Segments",
        "text": "component.data.formats.text:Text",
        "preference": "component.data.formats.preference:Preference",
        "kto": "component.data.formats.kto:KTO",
        "prompt_only": "component.data.formats.prompt_only:PromptOnly",
    },
)

#: Rewards of completions that can be named in a config.
REWARDS = Registry(
    "reward",
    {
        "exact_match": "component.trainers.rewards.answers:ExactMatch",
        "numeric_answer": "component.trainers.rewards.answers:NumericAnswer",
        "format": "component.trainers.rewards.forms:Format",
        "length": "component.trainers.rewards.forms:Length",
        "json_schema": "component.trainers.rewards.forms:JSONSchema",
        "code_fence": "component.trainers.rewards.forms:CodeFence",
    },
)

#: Chat templates that can be named in a config; `component.data.templates` holds them.
TEMPLATE_NAMES = (
    "default",
    "alpaca",
    "chatml",
    "internlm",
    "internlm2",
    "qwen",
    "yi",
    "orion",
    "deepseek",
    "chatglm2",
    "chatglm3",
    "ziya2",
    "xverse",
    "minicpm",
    "minicpm3",
    "zephyr",
    "mistral",
    "mixtral",
    "baichuan",
    "baichuan2",
    "vicuna",
    "llama2",
    "llama3",
    "gemma",
    "phi3",
    "llama3.1",
    "qwen3",
    "gemma3",
    "phi4",
    "deepseek-r1",
)

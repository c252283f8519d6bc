"""The section of the data: which files are read and how rows become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import MISSING

from component.config.keys import CHAT_TASKS, key
from component.config.sections.shared import CacheKeys, CompletionKeys, SequenceKeys, TaskKeys


@dataclass(frozen=True)
class DataSection(TaskKeys, SequenceKeys, CompletionKeys, CacheKeys):
    """Which files are read and how rows become tokens."""

    train_file: list[str] = key(
        MISSING,
        "Training data: a file, a folder, a glob, a web address, a dataset of the hub "
        "(hub:owner/name?config=...&split=...&revision=...), or a list of them.",
        one_or_many=True,
        path=True,
    )
    eval_file: list[str] | None = key(None, "Evaluation data, like train_file.", one_or_many=True, path=True)
    eval_split: float | None = key(
        None, "Share (below 1) or number of training rows that are held out for evaluation.", above=0
    )
    mixture_weights: list[float] | None = key(
        None,
        "Shares of the entries of train_file: their rows are interleaved, none is repeated, and of entries with more "
        "rows than their share the seed chooses some.",
        default_note="all rows, entry after entry",
    )
    max_samples: int | list[int] | None = key(
        None,
        "Usable rows that are read of each entry of train_file at most, the first ones; one number, or one an entry.",
        above=0,
        default_note="all",
    )
    data_format: str = key("auto", "Format of the rows; auto detects it from the first ones.")
    columns: dict[str, str] = key(
        {}, 'Columns with other names: the name in the files -> the name that the format reads ({"query": "question"}).'
    )
    template_name: str = key(
        "auto",
        "Chat template: the tokenizer's own (auto), a .jinja file, or a named one for base models.",
        tasks=CHAT_TASKS,
    )
    chat_template_kwargs: dict[str, Any] = key(
        {},
        "Arguments for the chat template, such as enable_thinking.",
        tasks=CHAT_TASKS,
    )
    template_date: str | None = key(
        None,
        "Date (YYYY-MM-DD) that a chat template shows where it asks for today's.",
        tasks=CHAT_TASKS,
        default_note="the day of the run's first attempt",
        cosmetic=True,
    )
    append_stop_token: bool = key(
        False,
        "Append the tokenizer's EOS to answers where the template emits no stop token.",
        tasks=CHAT_TASKS,
    )
    train_on_prompt: bool = key(False, "Learn all tokens of a row, not its answers alone.", tasks=("sft",))
    train_on: Literal["all", "last"] = key(
        "all", "Learn all answers of a conversation, or its last one; an answer of weight 0 never.", tasks=("sft",)
    )
    default_system: str | None = key(
        None,
        "System text of conversations that have no system message.",
        tasks=CHAT_TASKS,
        default_note="what the chat template does then",
    )
    content_control_tokens: Literal["text", "control", "reject"] = key(
        "text",
        "A control token that a row's own text spells out: plain text, the control token, or a reason to reject; in a "
        "text without a template it stays the control token unless it is rejected.",
        tasks=CHAT_TASKS,
    )
    truncation: Literal["drop", "keep_start", "keep_end", "error", "split_turns"] = key(
        "drop",
        "What happens to a row longer than max_seq_length: dropped (and counted as a bad row), cut to its first or "
        "last tokens, an error, or split between turns into several samples that each begin with the system message "
        "(sft alone). Of a preference keep_start cuts the answers, keep_end the prompt, alike for both.",
        tasks=CHAT_TASKS,
    )
    max_bad_rows: float = key(
        0.01, "Share of rows that may be dropped before the run stops; 1.0 never stops.", minimum=0, maximum=1
    )
    tokenize_num_workers: int | None = key(
        None, "Threads of the tokenizer.", above=0, cosmetic=True, default_note="all cores"
    )

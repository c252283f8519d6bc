"""A better and a worse answer to one prompt, in the forms of TRL, ShareGPT, Firefly and LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from component.data.formats.alpaca import read_prompt
from component.data.formats.conversation import EMPTY_PROMPT, check_answer, check_prompt, with_system
from component.data.formats.fields import (
    check_list,
    is_absent,
    read_optional_text,
    read_text,
    read_tools,
    require_key,
    split_columns,
)
from component.data.formats.prompts import TextOrMessages, as_messages, messages_of, places_of, read_text_or_messages
from component.data.formats.sharegpt import read_bare_tools, read_turns
from component.data.rows import Message, Row, RowError, Source

_INSTRUCTION = ("instruction", "input", "history")
_KEYS = ("prompt", "conversations", *_INSTRUCTION, "question", "chosen", "rejected", "system", "tools")
_SIDES = ("chosen", "rejected")

PROMPT_DIFFERS = "prompt is not in the conversations; theirs is used"
NO_PROMPT = "chosen and rejected are texts without a prompt"


class Preference:
    """`chosen` and `rejected`, with their prompt in one of five places.

    - `{"prompt": "...", "chosen": "...", "rejected": "..."}`, all texts: TRL's plain form, used without a template;
    - `prompt`, `chosen` and `rejected` as lists of messages: TRL's explicit form;
    - `chosen` and `rejected` as whole conversations that begin alike: TRL's implicit form, and Firefly's, whose
      `prompt` and `prompt_id` repeat what the conversations hold;
    - `conversations` of {from, value} turns, and one such turn in `chosen` and in `rejected`: ShareGPT's form;
    - `instruction`, `input` and `history`, or `question`, and texts in `chosen` and `rejected`: LLaMA-Factory's form.
    """

    row_kind = "preference"
    keys = _KEYS

    @staticmethod
    def looks_like(record: Mapping[str, Any]) -> bool:
        """Whether the record has `chosen` and `rejected`."""
        return "chosen" in record and "rejected" in record

    @staticmethod
    def parse(record: Mapping[str, Any], source: Source) -> Row:
        """Make a row of a record.

        Raises:
            RowError: an answer is missing or empty, both are the same, or their prompts differ.
        """
        for side in _SIDES:
            require_key(record, side, "preference", _KEYS)
            if record[side] is None:
                raise RowError(f"null {side}")
        if not is_absent(record, "conversations"):
            return _from_turns(record, source)
        if is_absent(record, "prompt") and not (is_absent(record, "instruction") and is_absent(record, "question")):
            return _from_question(record, source)
        answers, unread = {}, {}
        for side in _SIDES:
            answers[side], odd = read_text_or_messages(record[side], side)
            unread |= dict.fromkeys(odd)
        is_text = not isinstance(messages_of(record.get("prompt")), list)
        if is_text and all(isinstance(answer, str) for answer in answers.values()):
            return _from_texts(record, source, answers)
        columns, misspelt = split_columns(record, ("prompt", *_SIDES, "system", "tools"))
        notices = (*misspelt, *unread)
        prompt, answers, odd = _split_prompt(record, answers)
        return _build(source, prompt, answers, read_tools(record.get("tools")), columns, (*notices, *odd))


def _from_turns(record: Mapping[str, Any], source: Source) -> Row:
    """Read ShareGPT's form."""
    columns, notices = split_columns(record, ("conversations", *_SIDES, "system", "tools"))
    turns, _, unread = read_turns(check_list(record["conversations"], "conversations"))
    odd = dict.fromkeys(unread)
    answers = {}
    for side in _SIDES:
        written = record[side]
        turns_of_side = check_list(written, side) if isinstance(written, list) else [written]
        messages, _, unread = read_turns(turns_of_side, side if len(turns_of_side) == 1 else f"{side} turn")
        answers[side] = tuple(messages)
        odd |= dict.fromkeys(unread)
    prompt, _ = with_system(read_optional_text(record, "system"), turns, [""] * len(turns))
    return _build(source, prompt, answers, read_bare_tools(record), columns, (*notices, *odd))


def _from_question(record: Mapping[str, Any], source: Source) -> Row:
    """Read LLaMA-Factory's form, which is a conversation."""
    if is_absent(record, "instruction"):
        columns, notices = split_columns(record, ("question", *_SIDES, "system"))
        question, places = [Message("user", read_text(record["question"], "question"))], ["question"]
    else:
        columns, notices = split_columns(record, (*_INSTRUCTION, *_SIDES, "system"))
        question, places = read_prompt(record)
    prompt, _ = with_system(read_optional_text(record, "system"), question, places)
    answers = {side: (Message("assistant", read_text(record[side], side)),) for side in _SIDES}
    return _build(source, prompt, answers, (), columns, notices)


def _from_texts(record: Mapping[str, Any], source: Source, answers: Mapping[str, Any]) -> Row:
    """Read TRL's plain form."""
    columns, notices = split_columns(record, ("prompt", *_SIDES))
    prompt = record.get("prompt")
    if prompt is not None:
        prompt, _ = read_text_or_messages(prompt, "prompt")
    for side in _SIDES:
        if not answers[side].strip():
            raise RowError(f"empty answer: {side}")
    if answers["chosen"] == answers["rejected"]:
        raise RowError("chosen equals rejected")
    odd = (NO_PROMPT,) if prompt is None else () if prompt.strip() else (EMPTY_PROMPT,)
    return Row(source, text=prompt or "", columns=columns, notices=(*notices, *odd), **answers)


def _split_prompt(
    record: Mapping[str, Any], answers: Mapping[str, TextOrMessages]
) -> tuple[tuple[Message, ...], dict[str, tuple[Message, ...]], tuple[str, ...]]:
    """Return the prompt, the answers without it, and notices."""
    chosen, rejected = (as_messages(answers[side], "assistant") for side in _SIDES)
    written = record.get("prompt")
    system = read_optional_text(record, "system")
    prompt: TextOrMessages | None = None
    notices: tuple[str, ...] = ()
    if written is not None:
        prompt, notices = read_text_or_messages(written, "prompt")
    if prompt is not None and _begins_with_answer(chosen) and _begins_with_answer(rejected):
        messages = as_messages(prompt, "user")
        before, _ = with_system(system, messages, [""] * len(messages))
        return before, {"chosen": chosen, "rejected": rejected}, notices
    shared = _num_shared(chosen, rejected)
    if not shared:
        raise RowError("different prompts: chosen and rejected begin with different messages")
    if len(chosen) == len(rejected) == shared:
        raise RowError("chosen equals rejected")
    rest = {"chosen": chosen[shared:], "rejected": rejected[shared:]}
    for side in _SIDES:
        if rest[side] and rest[side][0].role != "assistant":
            raise RowError(f"different prompts: {side} message {shared + 1} is {rest[side][0].role}'s, not an answer")
    if prompt and not _holds(chosen[:shared], as_messages(prompt, "user")):
        notices = (*notices, PROMPT_DIFFERS)
    before, _ = with_system(system, chosen[:shared], [""] * shared)
    return before, rest, notices


def _build(
    source: Source,
    prompt: tuple[Message, ...],
    answers: Mapping[str, tuple[Message, ...]],
    tools: tuple[Mapping[str, Any], ...],
    columns: Mapping[str, Any],
    notices: Sequence[str],
) -> Row:
    """Check a preference of messages and make its row."""
    odd = check_prompt(prompt, places_of(prompt, "prompt"))
    for side in _SIDES:
        if not answers[side]:
            raise RowError(f"empty answer: {side} ends with the prompt")
        check_answer(prompt, answers[side], places_of(answers[side], side))
    if answers["chosen"] == answers["rejected"]:
        raise RowError("chosen equals rejected")
    notices = (*notices, *odd)
    return Row(source, messages=prompt, tools=tools, columns=columns, notices=notices, **answers)


def _begins_with_answer(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0].role == "assistant"


def _num_shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many messages two conversations have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _holds(messages: Sequence[Message], part: Sequence[Message]) -> bool:
    """Whether each message of `part` is among `messages`."""
    return all(message in messages for message in part)

"""What of a rendered conversation is learned: all answers or the last one, and the prompt too where that is wished."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from component.data.rows import Message, RowError
from component.data.spans import Answer
from component.data.turns import Span


def learned_answers(messages: Sequence[Message], train_on: str) -> frozenset[int]:
    """Indices of the assistant messages that are learned.

    Args:
        messages: the conversation.
        train_on: "all" or "last".

    Raises:
        RowError: there is none.
    """
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise RowError("no assistant message to learn from")
    candidates = answers if train_on == "all" else answers[-1:]
    learned = frozenset(index for index in candidates if messages[index].weight != 0)
    if not learned:
        which = "every answer" if train_on == "all" else "the last answer"
        raise RowError(f"no supervised token: {which} has weight 0")
    return learned


def supervised_spans(
    answers: Sequence[Answer], learned: Collection[int], *, length: int, train_on_prompt: bool
) -> tuple[Span, ...]:
    """The supervised characters of a rendered conversation.

    Args:
        answers: the conversation's answers, ascending; those that are not learned may be left out.
        learned: indices of the messages that are learned.
        length: of the text.
        train_on_prompt: whether all is learned but the answers that are not.

    Raises:
        RowError: an answer stands for several messages of which some are learned and others not.
    """
    chosen = [answer for answer in answers if _is_learned(answer, learned)]
    if not train_on_prompt:
        return tuple((answer.start, answer.end) for answer in chosen)
    left_out = [answer for answer in answers if answer not in chosen]
    edges = [0, *(edge for answer in left_out for edge in (answer.start, answer.end)), length]
    return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


def _is_learned(answer: Answer, learned: Collection[int]) -> bool:
    chosen = [index in learned for index in answer.messages]
    if any(chosen) != all(chosen):
        raise RowError("answer not provable: a generation block holds several messages, not all of which are learned")
    return all(chosen)


def split_turns(messages: Sequence[Message], train_on: str) -> tuple[list[Message], list[list[Message]]]:
    """Cut a conversation where a user speaks.

    Returns:
        The system message, if there is one, and the turns: a question with all that answers it. What is not learned
        in the whole conversation has weight 0, so that it is not learned in a piece of it either.
    """
    learned = learned_answers(messages, train_on)
    system, turns = [], []
    for index, message in enumerate(messages):
        if message.role == "assistant" and index not in learned:
            message = replace(message, weight=0)
        if message.role == "system" and not turns:
            system.append(message)
        elif message.role == "user" or not turns:
            turns.append([message])
        else:
            turns[-1].append(message)
    return system, turns

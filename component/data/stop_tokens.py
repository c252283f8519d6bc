"""The stop token that a template does not write, put after the answers that lack one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from component.data.spans import Answer
from component.data.traced_text import TracedText, join_traced


def append_stop_tokens(text: TracedText, answers: Sequence[Answer], stop: str) -> tuple[TracedText, list[Answer]]:
    """The text and its answers, with `stop` at the end of each answer that the template does not terminate.

    Args:
        text: a rendered conversation.
        answers: all its answers, ascending.
        stop: the stop token.
    """
    if all(answer.is_terminated for answer in answers):
        return text, list(answers)
    pieces: list[str] = []
    moved: list[Answer] = []
    position = added = 0
    for answer in answers:
        appended = "" if answer.is_terminated else stop
        pieces += (text[position : answer.end], appended)
        moved.append(replace(answer, start=answer.start + added, end=answer.end + added + len(appended)))
        position, added = answer.end, added + len(appended)
    return join_traced("", (*pieces, text[position:])), moved

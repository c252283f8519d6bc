"""Where an answer begins: at the end of the prompt that the template itself writes for that turn."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from component.data.jinja_trace import find_tested_literals
from component.data.probes import CALLING, TURN, Probes, RenderTrace, Tools
from component.data.rows import Message, RowError
from component.data.traced_text import UNOWNED, TracedText
from component.data.turns import Turn, locate_turn

# A prompt that makes the model think, or keeps it from it, goes on where an answer without a thought begins.
_THOUGHT = re.compile(r"\s*(<[^<>]*think[^<>]*>\s*)*", re.IGNORECASE)
_MAX_CACHED_SHAPES = 4096


class GenerationPrompts:
    """The generation prompts of one template.

    Args:
        render: renders messages and tools, with a generation prompt or without, to traced text.
        probes: of the same template.
        source: the template.
        control: matches control texts.
    """

    def __init__(self, render: RenderTrace, probes: Probes, *, source: str, control: re.Pattern[str]) -> None:
        self._render = render
        self._probes = probes
        self._control = control
        self._searched, self._compared = find_tested_literals(source)
        self._prompts: dict[tuple[Any, ...], str] = {}

    def start(self, text: TracedText, turn: Turn, messages: Sequence[Message], index: int, tools: Tools) -> int:
        """Where the generation prompt of an answer ends in the conversation's text.

        Args:
            text: the conversation, rendered.
            turn: where the answer lies in it.
            messages, index: the conversation, and which of its messages the answer is.
            tools: of the conversation.

        Raises:
            RowError: the text before the answer is not that of the prompt.
        """
        before = turn.before
        begin = turn.start - len(before)
        prompt = self._prompt(messages[:index], tools)
        if before.startswith(prompt):
            return begin + len(prompt)
        prompt = self._prompt_tail(messages[:index], tools)
        if self._control.search(before) and prompt.endswith(before):  # what precedes the header differs
            return turn.start
        shared = shared_length(before, prompt, self._control)
        rest = prompt[shared:]
        if shared == len(before) and text.plain(turn.start).startswith(rest):  # the answer itself opens the thought
            return turn.start + len(rest)
        if shared == len(before) or _THOUGHT.fullmatch(rest) or rest in self._openings:
            return begin + shared
        if messages[index].tool_calls and before[shared:] == self._call_opening:
            return begin + shared
        if end_of_header := self._end_of_header(before, prompt):
            return begin + end_of_header
        raise RowError(
            f"answer not provable: message {index + 1} does not begin where the generation prompt ends; "
            f"the prompt ends in {prompt[-60:]!r}, the text before the answer in {before[-60:]!r}"
        )

    def _end_of_header(self, before: str, prompt: str) -> int:
        """Where in `before` stands most of what the prompt ends in; 0 unless that holds a control text.

        So a header is found that follows other text than in the prompt: an instruction that the template moves, a
        tool's turn that it closes otherwise once an answer follows.
        """
        lengths = [
            len(os.path.commonprefix([before[end - 1 :: -1], prompt[::-1]])) for end in range(1, len(before) + 1)
        ]
        longest = max(lengths, default=0)
        end = len(lengths) - lengths[::-1].index(longest) if longest else 0
        return end if self._control.search(before[end - longest : end]) else 0

    @cached_property
    def _openings(self) -> frozenset[str]:
        """What a prompt puts into the mouth of the model that stands before no answer of a conversation."""
        try:
            before = locate_turn(self._probes.render(TURN), 1).before
            text = self._probes.render(TURN[:1], True)
        except RowError:
            return frozenset()
        prompt = text.plain(len(text.origin.rstrip(UNOWNED)))
        return frozenset([prompt[len(before) :]] if prompt.startswith(before) else [])

    @cached_property
    def _call_opening(self) -> str:
        """What the template writes between the prompt and a call that answers a question; empty where it is unknown."""
        try:
            before = locate_turn(self._probes.render(CALLING), 1).before
            prompt = self._prompt_tail(CALLING[:1], self._probes.tools)
        except RowError:
            return ""
        return before[len(prompt) :] if before.startswith(prompt) else ""

    def _prompt(self, prefix: Sequence[Message], tools: Tools) -> str:
        """`_prompt_tail`, remembered for conversations of one shape whose texts hold nothing the template looks for."""
        if any(self._is_looked_for(message.content) for message in prefix):
            return self._prompt_tail(prefix, tools)
        shape = (bool(tools), *map(_shape, prefix))
        prompt = self._prompts.get(shape)
        if prompt is None:
            prompt = self._prompt_tail(prefix, tools)
            if len(self._prompts) < _MAX_CACHED_SHAPES:
                self._prompts[shape] = prompt
        return prompt

    def _prompt_tail(self, prefix: Sequence[Message], tools: Tools) -> str:
        """What the template writes after the last message's own text, up to where the model begins to write."""
        text = self._render(prefix, tools, True)
        return text.plain(len(text.origin.rstrip(UNOWNED)))

    def _is_looked_for(self, content: str) -> bool:
        return content.strip() in self._compared or any(literal in content for literal in self._searched)


def shared_length(first: str, second: str, control: re.Pattern[str]) -> int:
    """The length of the text that both begin with, cut back so that no control text is torn."""
    shared = len(os.path.commonprefix([first, second]))
    for match in (*control.finditer(first), *control.finditer(second)):
        if match.start() < shared < match.end():
            shared = match.start()
    return shared


def _shape(message: Message) -> tuple[Any, ...]:
    """What of a message, besides its words, may decide which path a template takes."""
    fields = (message.reasoning_content, message.tool_calls, message.tool_call_id, message.name)
    return (message.role, bool(message.content), bool(message.content.strip()), *map(bool, fields))

"""Which characters of a rendered conversation are supervised, proven from the origin of each character.

A span runs from the end of the generation prompt to the first terminator that the template writes after the answer,
the terminator included. What the template writes in between (an empty think block, say) belongs to the span.
`{% generation %}` blocks, where a template has them, define the spans instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from component.data.endings import NO_TERMINATOR, Endings
from component.data.generation_prompts import GenerationPrompts, shared_length
from component.data.probes import CALLING, TURN, Probes, RenderTrace, Tools
from component.data.rows import Message, RowError
from component.data.traced_text import TracedText, unmark_generated
from component.data.turns import (
    Turn,
    check_calls_are_shown,
    find_last_words,
    generated_spans,
    locate_turn,
    messages_within,
)

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class Answer:
    """The supervised characters [start, end) of an assistant message.

    `is_terminated` says whether they end in a terminator that the tokenizer knows; `messages` are the indices of those
    that stand in it: one, or those of a generation block.
    """

    start: int
    end: int
    is_terminated: bool = True
    messages: tuple[int, ...] = ()


class SpanProver:
    """Finds the supervised spans of conversations that one template rendered.

    Args:
        render: renders messages and tools, with a generation prompt or without, to traced text.
        source: the template.
        stop_texts: texts that are known to end a turn: the tokenizer's EOS, the template's declared stop tokens.
        control_texts: the tokenizer's special tokens.
        needs_terminator: whether an answer that the template does not terminate is refused.
    """

    def __init__(
        self,
        render: RenderTrace,
        *,
        source: str,
        stop_texts: Iterable[str],
        control_texts: Iterable[str],
        needs_terminator: bool = True,
    ) -> None:
        self._render = render
        self._probes = Probes(render)
        self._endings = Endings(self._probes, stop_texts=stop_texts, control_texts=control_texts)
        self._prompts = GenerationPrompts(render, self._probes, source=source, control=self._endings.control)
        self._needs_terminator = needs_terminator
        self.has_generation_blocks = bool(_GENERATION.search(source))

    def answers(
        self,
        text: TracedText,
        messages: Sequence[Message],
        tools: Tools = (),
        only: Collection[int] | None = None,
    ) -> list[Answer]:
        """The answers in `text`, which is `messages` rendered; ascending and disjoint.

        Args:
            text: the rendered conversation.
            messages, tools: what was rendered.
            only: indices of the assistant messages that must be proven; None means all. Generation blocks are always
                given all.

        Raises:
            RowError: a span cannot be proven, or the template leaves out a tool call; the message says why.
        """
        if self.has_generation_blocks:
            return self._generated(text, messages)
        found = []
        for index, message in enumerate(messages):
            is_wanted = message.role == "assistant" and (only is None or index in only)
            as_last = self._as_last(text, messages, index, tools) if message.tool_calls else text
            if message.tool_calls and is_wanted:
                found.append(self._answer_with_calls(text, as_last, messages, index, tools))
            elif message.tool_calls:
                self._check_calls(as_last, messages, index)
            elif is_wanted:
                found.append(self._plain_answer(text, messages, index, tools))
        return found

    def _generated(self, text: TracedText, messages: Sequence[Message]) -> list[Answer]:
        """The answers that generation blocks mark."""
        if any(message.tool_calls for message in messages):
            unmarked = unmark_generated(text)
            for index, message in enumerate(messages):
                if message.tool_calls:
                    self._check_calls(unmarked, messages, index)
        return [
            Answer(start, end, self._endings.is_known(text.plain(start, end)), messages_within(text, start, end))
            for start, end in generated_spans(text)
        ]

    def _plain_answer(self, text: TracedText, messages: Sequence[Message], index: int, tools: Tools) -> Answer:
        turn = locate_turn(text, index)
        start = self._prompts.start(text, turn, messages, index, tools)
        endings = self._endings.plain
        if isinstance(endings, RowError):
            if self._needs_terminator:
                raise RowError(*endings.args)
            own = locate_turn(self._as_last(text, messages, index, tools), index)
            return self._unterminated(start, turn, own, index)
        for ending in endings:
            if turn.after.startswith(ending):
                return Answer(start, turn.end + len(ending), self._endings.is_known(ending), (index,))
        raise RowError(
            f"answer not provable: message {index + 1} is not followed by the terminator {endings[0]!r} "
            f"but by {turn.after[:60]!r}"
        )

    def _check_calls(self, as_last: TracedText, messages: Sequence[Message], index: int) -> Turn:
        """Where a message that calls tools lies in the conversation up to it; refused if a call is left out."""
        own = locate_turn(as_last, index)
        check_calls_are_shown(as_last, own, index, messages[index])
        return own

    def _answer_with_calls(
        self, text: TracedText, as_last: TracedText, messages: Sequence[Message], index: int, tools: Tools
    ) -> Answer:
        """An answer that calls tools.

        Args:
            text: the conversation.
            as_last: the conversation up to this message.
            messages, index, tools: as in `answers`.
        """
        own = self._check_calls(as_last, messages, index)
        opened = as_last.plain(self._prompts.start(as_last, own, messages, index, tools), own.end)
        ending = self._endings.of_call(own.after, own.after, opened)
        turn = locate_turn(text, index, find_last_words(as_last, index) if ending else "", ending)
        check_calls_are_shown(text, turn, index, messages[index])
        start = self._prompts.start(text, turn, messages, index, tools)
        ending = self._endings.of_call(own.after, turn.after, text.plain(start, turn.end))
        if ending:
            return Answer(start, turn.end + len(ending), self._endings.is_known(ending), (index,))
        if self._needs_terminator:
            raise RowError(
                "the template writes no terminator after a tool call, so a model would not learn to stop: "
                f"message {index + 1} is followed by {turn.after[:60]!r}"
            )
        return self._unterminated(start, turn, own, index)

    def _unterminated(self, start: int, turn: Turn, own: Turn, index: int) -> Answer:
        """An answer that a stop token will be written after: what follows it where it is the last belongs to it."""
        control = self._endings.control.search(turn.after)
        if control and control.group() in self._endings.stop_texts:  # all answers but the last are terminated
            return Answer(start, turn.end + control.end(), True, (index,))
        shared = shared_length(own.after, turn.after, self._endings.control)
        rest = self._endings.before_next_turn(turn.after[:shared])
        return Answer(start, turn.end + len(rest.rstrip()), False, (index,))

    def _as_last(self, text: TracedText, messages: Sequence[Message], index: int, tools: Tools) -> TracedText:
        """The conversation up to a message."""
        return text if index == len(messages) - 1 else self._render(messages[: index + 1], tools, False)

    @property
    def probe_tools(self) -> Tools:
        """The tools without which the template refuses a plain conversation; empty where it does not."""
        return self._probes.tools

    @cached_property
    def terminators(self) -> tuple[str, ...]:
        """The control texts that end an answer, such as `<|im_end|>`.

        Raises:
            RowError: there is none.
        """
        if self.has_generation_blocks:
            text = self._probes.render(TURN)
            endings = tuple(text.plain(start, end) for start, end in generated_spans(text)[-1:])
        elif isinstance(self._endings.plain, RowError):
            raise RowError(*self._endings.plain.args)
        else:
            endings = self._endings.plain
        controls = [self._endings.control.findall(ending) for ending in endings]
        if not controls or not all(controls):
            raise RowError(NO_TERMINATOR)
        return tuple(dict.fromkeys(found[-1] for found in controls))

    @cached_property
    def call_terminators(self) -> tuple[str, ...]:
        """The control texts that end an answer that calls tools; empty where a template takes none, or ends none."""
        try:
            text = self._probes.render(CALLING)
            answers = self.answers(text, CALLING, self._probes.tools, {1})
        except RowError:
            return ()
        ends = [text.plain(answer.start, answer.end).rstrip() for answer in answers[:1]]
        controls = [self._endings.control.findall(end)[-1:] for end in ends]
        return tuple(found[0] for found, end in zip(controls, ends, strict=True) if found and end.endswith(found[0]))

    @cached_property
    def terminates_answers(self) -> bool:
        """Whether the template ends an answer with a token that the tokenizer knows.

        Raises:
            RowError: it writes no terminator, and `needs_terminator`.
        """
        return all(answer.is_terminated for answer in self.answers(self._probes.render(TURN), TURN, self._probes.tools))

"""Which characters of a rendered conversation are supervised, proven from the origin of each character.

A span runs from the end of the generation prompt to the first terminator that the template writes after the answer,
the terminator included. What the template writes in between (an empty think block, say) belongs to the span.
`{% generation %}` blocks, where a template has them, define the spans instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from component.data.jinja_trace import find_tested_literals
from component.data.rows import Message, RowError
from component.data.traced_text import GENERATED, TEMPLATE, TracedText, message_origin

Span = tuple[int, int]
Tools = Sequence[Mapping[str, Any]]
RenderTrace = Callable[[Sequence[Message], Tools, bool], TracedText]

# Text that reads as a control token even where the tokenizer does not know it, such as <|end|> or </s>.
_CONTROL_TEXT = r"<[|｜][^<>|｜]+[|｜]>|</?[A-Za-z][\w:.|-]*>"
# A prompt that makes the model think, or keeps it from it, goes on where an answer without a thought begins.
_THOUGHT = re.compile(r"\s*(<[^<>]*think[^<>]*>\s*)*", re.IGNORECASE)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = (Message("user", "Zq one"), Message("assistant", "Zq two"))
_LONG_PROBE = (*_PROBE, Message("user", "Zq three"), Message("assistant", "Zq four"))
_MAX_CACHED_SHAPES = 4096
_NO_TERMINATOR = "the template writes no terminator after an answer, so a model would not learn to stop"


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


@dataclass(frozen=True)
class Turn:
    """Where one message lies in a rendered conversation.

    Attributes:
        start, end: the characters from its first to its last own one.
        before, after: the template's text that touches it on either side, up to the neighbours' own text.
    """

    start: int
    end: int
    before: str
    after: str


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
        self._stop_texts = frozenset(stop_texts)
        self._known_controls = self._stop_texts.union(control_texts)
        longest_first = sorted(self._known_controls, key=len, reverse=True)
        self._control = re.compile("|".join([*map(re.escape, longest_first), _CONTROL_TEXT]))
        self._needs_terminator = needs_terminator
        self.has_generation_blocks = bool(_GENERATION.search(source))
        self._searched, self._compared = find_tested_literals(source)
        self._prompts: dict[tuple[Any, ...], str] = {}

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
            RowError: a span cannot be proven; the message says why.
        """
        if self.has_generation_blocks:
            return [
                Answer(start, end, self._is_stopping(text.plain(start, end)), _messages_within(text, start, end))
                for start, end in generated_spans(text)
            ]
        found = []
        for index, message in enumerate(messages):
            if message.role == "assistant" and (only is None or index in only):
                turn = locate_turn(text, index)
                start = self._start(turn, messages, index, tools)
                end, is_terminated = self._end(turn, messages, index, tools)
                found.append(Answer(start, end, is_terminated, (index,)))
        return found

    @cached_property
    def endings(self) -> tuple[str, ...] | RowError:
        """What the template writes after an answer up to its terminator; two texts where the last answer's differs.

        Learnt once from two short conversations. A RowError, as a value, says why there is no provable terminator.
        """
        try:
            return self._probe_endings()
        except RowError as error:
            return error

    def _probe_endings(self) -> tuple[str, ...]:
        long = self._render(_LONG_PROBE, (), False)
        last, inner = locate_turn(self._render(_PROBE, (), False), 1).after, locate_turn(long, 1).after
        ending = self._ending(inner[: self._shared_length(last, inner)])
        if ending:
            return (ending,)
        last_ending, inner_match = self._ending(last), self._control.search(inner)
        if not last_ending:
            raise RowError(_NO_TERMINATOR)
        # The last answer ends otherwise than the others. What follows those may be the header of the next turn; an
        # ending also ends a user's turn, and stands before the header with which a prompt continues that turn.
        inner_ending = inner[: inner_match.end()] if inner_match else ""
        question, prompt = (self._render(_PROBE[:1], (), is_prompt).plain() for is_prompt in (False, True))
        header = prompt[self._shared_length(question, prompt) :]
        ends_a_question = bool(inner_ending) and locate_turn(long, 2).after.startswith(inner_ending)
        if not ends_a_question or inner_match.group() in header:
            raise RowError("the template writes a terminator after the last answer only, and none after the others")
        return (last_ending, inner_ending)

    @cached_property
    def terminators(self) -> tuple[str, ...]:
        """The control texts that end an answer, such as `<|im_end|>`.

        Raises:
            RowError: there is none.
        """
        if self.has_generation_blocks:
            text = self._render(_PROBE, (), False)
            endings = tuple(text.plain(start, end) for start, end in generated_spans(text)[-1:])
        elif isinstance(self.endings, RowError):
            raise RowError(*self.endings.args)
        else:
            endings = self.endings
        controls = [self._control.findall(ending) for ending in endings]
        if not controls or not all(controls):
            raise RowError(_NO_TERMINATOR)
        return tuple(dict.fromkeys(found[-1] for found in controls))

    @cached_property
    def terminates_answers(self) -> bool:
        """Whether the template ends an answer with a token that the tokenizer knows.

        Raises:
            RowError: it writes no terminator, and `needs_terminator`.
        """
        return all(answer.is_terminated for answer in self.answers(self._render(_PROBE, (), False), _PROBE))

    def _is_stopping(self, ending: str) -> bool:
        return not self._known_controls.isdisjoint(self._control.findall(ending))

    def _ending(self, after: str, known: frozenset[str] = frozenset()) -> str:
        """The part of `after` up to its first known stop text, else up to its only control text; empty without any."""
        controls = list(self._control.finditer(after))
        stops = [match for match in controls if match.group() in self._stop_texts | known]
        if len(controls) > 1 and not stops:  # what reads as a tag is text where the tokenizer knows another one
            stops = [match for match in controls if match.group() in self._known_controls]
            stops = stops if len(stops) == 1 else []
        if len(controls) > 1 and not stops:
            names = " ".join(match.group() for match in controls)
            raise RowError(f"the template ends an answer with {names}, and none of these is the tokenizer's EOS token")
        return after[: (stops or controls)[0].end()] if controls else ""

    def _shared_length(self, first: str, second: str) -> int:
        """The length of the text that both begin with, cut back so that no control text is torn."""
        shared = len(os.path.commonprefix([first, second]))
        for match in (*self._control.finditer(first), *self._control.finditer(second)):
            if match.start() < shared < match.end():
                shared = match.start()
        return shared

    def _start(self, turn: Turn, messages: Sequence[Message], index: int, tools: Tools) -> int:
        """Where the generation prompt of an answer ends, by the template's own prompt for that turn."""
        before = turn.before
        begin = turn.start - len(before)
        prompt = self._prompt(messages[:index], tools)
        if before.startswith(prompt):
            return begin + len(prompt)
        prompt = self._prompt_tail(messages[:index], tools)
        if self._control.search(before) and prompt.endswith(
            before
        ):  # a tool's turn that is not closed before an answer
            return turn.start
        shared = self._shared_length(before, prompt)
        if shared == len(before) or _THOUGHT.fullmatch(prompt, shared):
            return begin + shared
        raise RowError(
            f"answer not provable: message {index + 1} does not begin where the generation prompt ends; "
            f"the prompt ends in {prompt[-60:]!r}, the text before the answer in {before[-60:]!r}"
        )

    def _end(self, turn: Turn, messages: Sequence[Message], index: int, tools: Tools) -> tuple[int, bool]:
        """Where an answer ends, its terminator included, and whether that is one that the tokenizer knows."""
        endings = self.endings
        if isinstance(endings, RowError):
            if self._needs_terminator:
                raise RowError(*endings.args)
            return self._unterminated_end(turn, messages, index, tools)
        if messages[index].tool_calls:
            endings = (self._call_ending(self._own_after(messages, index, tools), turn.after),)
        for ending in endings:
            if ending and turn.after.startswith(ending):
                return turn.end + len(ending), self._is_stopping(ending)
        raise RowError(
            f"answer not provable: message {index + 1} is not followed by the terminator {endings[0]!r} "
            f"but by {turn.after[:60]!r}"
        )

    def _call_ending(self, own: str, after: str) -> str:
        """What ends an answer that calls tools; empty where there is no terminator.

        Args:
            own: what follows the call where it is the conversation's last message.
            after: what follows it here; some templates write a call otherwise once there is a result.
        """
        known = frozenset(self.terminators)
        shared = self._ending(after[: self._shared_length(own, after)], known)
        stop = next(
            (match for match in self._control.finditer(after) if match.group() in self._stop_texts | known), None
        )
        return shared or (after[: stop.end()] if stop else "")

    def _unterminated_end(self, turn: Turn, messages: Sequence[Message], index: int, tools: Tools) -> tuple[int, bool]:
        control = self._control.search(turn.after)
        if control and control.group() in self._stop_texts:  # a template that terminates all answers but the last
            return turn.end + control.end(), True
        own = self._own_after(messages, index, tools)
        return turn.end + len(turn.after[: self._shared_length(own, turn.after)].rstrip()), False

    def _own_after(self, messages: Sequence[Message], index: int, tools: Tools) -> str:
        """What the template writes after an answer that is the conversation's last."""
        return locate_turn(self._render(messages[: index + 1], tools, False), index).after

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
        return text.plain(len(text.origin.rstrip(TEMPLATE)))

    def _is_looked_for(self, content: str) -> bool:
        return content.strip() in self._compared or any(literal in content for literal in self._searched)


def locate_turn(text: TracedText, index: int) -> Turn:
    """Where message `index` lies in a rendered conversation.

    Raises:
        RowError: none of its text is there, or text of another message stands within it.
    """
    origin, own = text.origin, message_origin(index)
    start, end = origin.find(own), origin.rfind(own) + 1
    if start < 0:
        raise RowError(f"answer without text: message {index + 1} leaves none in the rendered conversation")
    if origin[start:end].strip(own + TEMPLATE):
        raise RowError(f"answer not provable: the text of message {index + 1} is mixed with that of another message")
    previous_end = len(origin[:start].rstrip(TEMPLATE))
    next_start = len(origin) - len(origin[end:].lstrip(TEMPLATE))
    return Turn(start, end, text.plain(previous_end, start), text.plain(end, next_start))


def generated_spans(text: TracedText) -> list[Span]:
    """The character spans that came from `{% generation %}` blocks; touching blocks are one span."""
    return [match.span() for match in re.finditer(f"[{chr(GENERATED)}-{chr(0x10FFFF)}]+", text.origin)]


def _messages_within(text: TracedText, start: int, end: int) -> tuple[int, ...]:
    origins = {ord(origin) % GENERATED for origin in text.origin[start:end]} - {ord(TEMPLATE)}
    return tuple(sorted(origin - 1 for origin in origins))


def _shape(message: Message) -> tuple[Any, ...]:
    """What of a message, besides its words, may decide which path a template takes."""
    fields = (message.reasoning_content, message.tool_calls, message.tool_call_id, message.name)
    return (message.role, bool(message.content), bool(message.content.strip()), *map(bool, fields))

"""Where an answer ends: at the first terminator that the template writes after it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

from component.data.generation_prompts import shared_length
from component.data.probes import TURN, TURNS, Probes
from component.data.rows import RowError
from component.data.turns import locate_turn

# Text that reads as a control token even where the tokenizer does not know it, such as <|end|> or </s>.
_CONTROL_TEXT = r"<[|｜][^<>|｜]+[|｜]>|</?[A-Za-z][\w:.|-]*>"
NO_TERMINATOR = "the template writes no terminator after an answer, so a model would not learn to stop"
_ONLY_BETWEEN = (
    "the template writes no terminator after the last answer, so a model would not learn to stop; "
    "before a next turn it writes {!r}"
)
_ONLY_LAST = "the template writes a terminator after the last answer only, and none after the others"


class Endings:
    """What one template writes after answers.

    Args:
        probes: of the template.
        stop_texts: texts that are known to end a turn: the tokenizer's EOS, the template's declared stop tokens.
        control_texts: the tokenizer's special tokens.
    """

    def __init__(self, probes: Probes, *, stop_texts: Iterable[str], control_texts: Iterable[str]) -> None:
        self._probes = probes
        self.stop_texts = frozenset(stop_texts)
        self._known_controls = self.stop_texts.union(control_texts)
        longest_first = sorted(self._known_controls, key=len, reverse=True)
        self.control = re.compile("|".join([*map(re.escape, longest_first), _CONTROL_TEXT]))

    @cached_property
    def plain(self) -> tuple[str, ...] | RowError:
        """What the template writes after an answer up to its terminator; two texts where the last answer's differs.

        Learnt once from two short conversations. A RowError, as a value, says why there is no provable terminator.
        """
        try:
            return self._probe()
        except RowError as error:
            return error

    def _probe(self) -> tuple[str, ...]:
        long = self._probes.render(TURNS)
        last, inner = locate_turn(self._probes.render(TURN), 1).after, locate_turn(long, 1).after
        ending = self.first(self.before_next_turn(inner[: shared_length(last, inner, self.control)]))
        if ending:
            return (ending,)
        last_ending, inner_match = self.first(self.before_next_turn(last)), self.control.search(inner)
        if not last_ending:
            is_header = inner_match is None or inner_match.group() in locate_turn(long, 0).before
            raise RowError(NO_TERMINATOR if is_header else _ONLY_BETWEEN.format(inner_match.group()))
        # The last answer ends otherwise than the others. What follows those may be the header of the next turn; an
        # ending also ends a user's turn, and stands before the header with which a prompt continues that turn.
        inner_ending = inner[: inner_match.end()] if inner_match else ""
        header = self._header
        ends_a_question = bool(inner_ending) and locate_turn(long, 2).after.startswith(inner_ending)
        if not ends_a_question or inner_match.group() in header:
            raise RowError(_ONLY_LAST)
        return (last_ending, inner_ending)

    @cached_property
    def _header(self) -> str:
        """The text with which a prompt continues a question."""
        question, prompt = (self._probes.render(TURN[:1], is_prompt).plain() for is_prompt in (False, True))
        return prompt[shared_length(question, prompt, self.control) :]

    @cached_property
    def _openers(self) -> frozenset[str]:
        """The control texts that begin a turn: those of the header that end none."""
        last = self.control.search(locate_turn(self._probes.render(TURN), 1).after)
        return frozenset(self.control.findall(self._header)) - self.stop_texts - {last.group() if last else ""}

    def before_next_turn(self, after: str) -> str:
        """The part of what follows an answer that stands before the next turn begins.

        Raises:
            RowError: the template refuses a plain conversation.
        """
        start = next((match.start() for match in self.control.finditer(after) if match.group() in self._openers), None)
        return after[:start]

    def of_call(self, own: str, after: str, answer: str) -> str:
        """What ends an answer that calls tools; empty where there is no terminator.

        Args:
            own: what follows the call where it is the conversation's last message.
            after: what follows it here; some templates write a call otherwise once there is a result.
            answer: the answer.
        """
        own, after = self.before_next_turn(own), self.before_next_turn(after)
        known = self.stop_texts.union([] if isinstance(self.plain, RowError) else map(self.last_control, self.plain))
        shared = self.first(after[: shared_length(own, after, self.control)], known, answer)
        stop = next((match for match in self.control.finditer(after) if match.group() in known), None)
        return shared or (after[: stop.end()] if stop else "")

    def first(self, after: str, known: frozenset[str] = frozenset(), answer: str = "") -> str:
        """The part of `after` up to its first known stop text, else up to its only control text; empty without any.

        Args:
            after: text of the template behind an answer.
            known: stop texts beside those that are known for all answers.
            answer: the answer; what closes something that was opened in it is no terminator.

        Raises:
            RowError: it could be any of several.
        """
        controls = [match for match in self.control.finditer(after) if not _is_paired(match, answer)]
        stops = [match for match in controls if match.group() in self.stop_texts | known]
        if len(controls) > 1 and not stops:  # what reads as a tag is text where the tokenizer knows another one
            stops = [match for match in controls if match.group() in self._known_controls]
            stops = stops if len(stops) == 1 else []
        if len(controls) > 1 and not stops:
            names = " ".join(match.group() for match in controls)
            raise RowError(f"the template ends an answer with {names}, and none of these is the tokenizer's EOS token")
        return after[: (stops or controls)[0].end()] if controls else ""

    def last_control(self, ending: str) -> str:
        """The control text at the end of an ending."""
        return self.control.findall(ending)[-1]

    def is_known(self, ending: str) -> bool:
        """Whether an ending holds a control text that the tokenizer knows."""
        return not self._known_controls.isdisjoint(self.control.findall(ending))


# What the name of a control text says that closes another one, and what the other's says.
_PAIRS = (("end", "begin"), ("end", "start"), ("suffix", "prefix"))


def _is_paired(match: re.Match[str], answer: str) -> bool:
    """Whether a control text behind an answer belongs to a pair, such as `<function=f>` and `</function>`.

    Args:
        match: the control text; what was opened in the answer or between it and this one counts.
        answer: the answer.
    """
    control, before, after = match.group(), answer + match.string[: match.start()], match.string[match.end() :]
    if control.startswith("</"):
        return re.search(rf"<{re.escape(control[2:-1])}\b", before) is not None
    if f"</{control[1:]}" in after:
        return True
    return any(end in control and control.replace(end, begin) in before for end, begin in _PAIRS)

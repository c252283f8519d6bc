"""One renderer for training, evaluation, chat and serving: conversations to token ids and supervised spans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2

from component.config.errors import UserError
from component.data.jinja_trace import compile_template
from component.data.rows import Message, RowError
from component.data.spans import Answer, Span, SpanProver, Tools
from component.data.templates import ChatTemplate, is_control_token
from component.data.traced_text import TracedText, message_origin, trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a template may make of a row that it was not written for. Jinja runs the template as Python code, so its slips
# arrive as Python's own exceptions.
_TEMPLATE_FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
# These fields name things in headers; they are not text that anybody writes.
_UNTRACED_FIELDS = frozenset({"role", "name", "tool_call_id"})

Encoded = tuple[tuple[int, ...], tuple[Span, ...]]
Conversation = tuple[Sequence[Message], Tools]


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation: its text and the supervised character spans [start, end), ascending and disjoint."""

    text: str
    spans: tuple[Span, ...]


class Renderer:
    """Renders conversations with one chat template and encodes them with one tokenizer.

    Args:
        tokenizer: a fast tokenizer.
        template: see `component.data.templates.load_chat_template`.
        template_kwargs: variables for the template, such as `enable_thinking`; they win over special tokens.
        append_stop_token: write the tokenizer's EOS token after an answer that the template ends with no token that the
            tokenizer knows.
        now: the moment that `strftime_now` of a template shows; by default the renderer's own beginning.

    Raises:
        UserError: the tokenizer is not a fast one, the template is no valid Jinja, there is no EOS token to append.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        append_stop_token: bool = False,
        now: datetime | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                "model_name_or_path: its tokenizer has no fast version, which exact spans need; "
                "use a model that has a tokenizer.json"
            )
        if append_stop_token and tokenizer.eos_token is None:
            raise UserError("append_stop_token: the tokenizer has no EOS token to append; set it to false")
        self.tokenizer = tokenizer
        self.template = template
        self.append_stop_token = append_stop_token
        self._now = now or datetime.now()
        self.template_kwargs = dict(template_kwargs or {})
        self._variables = {**tokenizer.special_tokens_map, **self.template_kwargs}
        try:
            self._compiled = compile_template(template.source, now=self._now)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"template_name: {template.origin}, line {error.lineno}: {error.message}; correct the template"
            ) from None
        self._prover = SpanProver(
            self._render,
            source=template.source,
            stop_texts={*template.stop_tokens, *([tokenizer.eos_token] if tokenizer.eos_token else [])},
            control_texts=[token.content for token in tokenizer.added_tokens_decoder.values() if token.special],
            needs_terminator=not append_stop_token,
        )

    def render(self, messages: Sequence[Message], tools: Tools = ()) -> Rendered:
        """Render a conversation to text with its supervised character spans.

        Raises:
            RowError: the template refuses the conversation, or a span cannot be proven; the message says why.
        """
        if not any(message.role == "assistant" for message in messages):
            raise RowError("no assistant message to learn from")
        if tools and "tools" not in self.template.source:
            raise RowError("the chat template has no place for tools")
        if any(message.tool_calls for message in messages) and "tool_calls" not in self.template.source:
            raise RowError("the chat template has no place for tool calls")
        text = self._render(messages, tools, False)
        answers = self._prover.answers(text, messages, tools)
        if not answers:
            raise RowError("no supervised text: the chat template marks none as generated")
        return self._with_stop_tokens(text.plain(), answers)

    def encode(self, messages: Sequence[Message], tools: Tools = ()) -> Encoded:
        """Token ids of a conversation and the supervised token spans [start, end); see `encode_batch`.

        Raises:
            RowError: as `render`, or a span that holds no token.
        """
        (encoded,) = self.encode_batch([(messages, tools)])
        if isinstance(encoded, RowError):
            raise encoded
        return encoded

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[Encoded | RowError]:
        """Encode many conversations at once, each as one whole text, so that ids equal `apply_chat_template`'s.

        A token that straddles the border of a span belongs to the side on which its first visible character lies:
        in `ASSISTANT: Yes` the token ` Yes` is supervised though its space stands in the prompt's line.

        Args:
            conversations: (messages, tools) each.

        Returns:
            For each conversation, in order, its ids and spans, or the error that says why it cannot be used.
        """
        rendered = [self._render_or_error(messages, tools) for messages, tools in conversations]
        usable = [item for item in rendered if isinstance(item, Rendered)]
        if not usable:
            return [item for item in rendered if isinstance(item, RowError)]
        encoding = self.tokenizer(
            [item.text for item in usable],
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        encoded = iter(zip(usable, encoding["input_ids"], encoding["offset_mapping"], strict=True))
        return [item if isinstance(item, RowError) else _to_tokens(*next(encoded)) for item in rendered]

    def encode_prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Token ids of a conversation up to where the model begins to write its answer.

        Raises:
            RowError: the template refuses the conversation.
        """
        text = self._render(messages, tools, True)
        prompt = text.plain()
        if self.append_stop_token:  # earlier answers end as they do in training
            prompt = self._with_stop_tokens(prompt, self._prover.answers(text, messages, tools)).text
        return list(self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def appends_stop_token(self) -> bool:
        """Whether answers really get an EOS token that the template does not write."""
        return self.append_stop_token and not self._prover.terminates_answers

    @property
    def shows_today(self) -> bool:
        """Whether the template shows no date, or this day's."""
        return "strftime_now" not in self.template.source or self._now.date() == datetime.now().date()

    @property
    def terminators(self) -> tuple[str, ...]:
        """The control texts that end an answer, such as `<|im_end|>`; the EOS token where it is appended.

        Raises:
            RowError: the template writes none, or none that can be proven.
        """
        if self.appends_stop_token:
            return (self.tokenizer.eos_token,)
        return self._prover.terminators

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The token ids at which generation ends: the template's terminators that are tokens, and EOS; ascending.

        Raises:
            RowError: the template writes no terminator.
        """
        stops = {*self.terminators, *self.template.stop_tokens}
        ids = {self.tokenizer.convert_tokens_to_ids(stop) for stop in stops if is_control_token(stop, self.tokenizer)}
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        return tuple(sorted(ids))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides what a conversation renders to, the tokenizer's vocabulary aside."""
        facts: dict[str, Any] = {
            "source": self.template.source,
            "stop_tokens": self.template.stop_tokens,
            "variables": self._variables,
            "append_stop_token": self.append_stop_token,
        }
        if "strftime_now" in self.template.source:
            facts["date"] = self._now.date().isoformat()
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _render(self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool) -> TracedText:
        variables = dict(
            messages=[_traced_message(message, index) for index, message in enumerate(messages)],
            tools=[dict(tool) for tool in tools] or None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
        )
        try:
            return self._compiled.render(**{**variables, **self._variables})  # type: ignore[return-value]
        except _TEMPLATE_FAILURES as error:
            raise RowError(f"refused by the chat template: {error}") from None

    def _render_or_error(self, messages: Sequence[Message], tools: Tools) -> Rendered | RowError:
        try:
            return self.render(messages, tools)
        except RowError as error:
            return error

    def _with_stop_tokens(self, text: str, answers: Sequence[Answer]) -> Rendered:
        """The text and its spans, with the EOS token after each answer that the template does not terminate."""
        pieces: list[str] = []
        spans: list[Span] = []
        position = added = 0
        for answer in answers:
            stop = self.tokenizer.eos_token if self.append_stop_token and not answer.is_terminated else ""
            pieces += (text[position : answer.end], stop)
            spans.append((answer.start + added, answer.end + added + len(stop)))
            position, added = answer.end, added + len(stop)
        return Rendered("".join((*pieces, text[position:])), tuple(spans))


def _traced_message(message: Message, index: int) -> dict[str, Any]:
    origin = message_origin(index)
    return {
        key: value if key in _UNTRACED_FIELDS else trace(value, origin)
        for key, value in message.as_template_message().items()
    }


def _to_tokens(rendered: Rendered, ids: Sequence[int], offsets: Sequence[Span]) -> Encoded | RowError:
    """Carry character spans over to tokens; all three sequences are ascending, so one pass does."""
    text, spans, token = rendered.text, [], 0
    for start, end in rendered.spans:
        while token < len(ids) and _first_visible(text, offsets[token]) < start:
            token += 1
        first = token
        while token < len(ids) and _first_visible(text, offsets[token]) < end:
            token += 1
        if first == token:
            return RowError("answer without tokens: it shares its only token with the text before it")
        spans.append((first, token))
    return tuple(ids), tuple(spans)


def _first_visible(text: str, offset: Span) -> int:
    """Where a token's first visible character is; its first one if all are whitespace."""
    start, end = offset
    while start < end and text[start].isspace():
        start += 1
    return start if start < end else offset[0]

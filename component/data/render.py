"""One renderer for training, evaluation, chat and serving: conversations to token ids and supervised spans."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError
from component.data.batch_encoding import BatchEncoder
from component.data.content_controls import ContentControls, SpelledOut
from component.data.left_out import find_left_out
from component.data.probes import Tools
from component.data.rendered import Encoded, Rendered, RenderOptions, to_tokens
from component.data.rows import Message, RowError
from component.data.spans import SpanProver
from component.data.stop_tokens import append_stop_tokens
from component.data.supervision import learned_answers, split_turns, supervised_spans
from component.data.template_runner import TemplateRunner
from component.data.templates import ChatTemplate, is_control_token
from component.data.traced_text import TracedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DEFAULTS = RenderOptions()

Conversation = tuple[Sequence[Message], Tools]


class Renderer:
    """Renders conversations with one chat template and encodes them with one tokenizer.

    Args:
        tokenizer: a fast tokenizer.
        template: see `component.data.templates.load_chat_template`.
        template_kwargs: variables for the template, such as `enable_thinking`; they win over special tokens.
        options: what is learned and how odd texts are treated.
        now: the moment that `strftime_now` of a template shows; by default the renderer's own beginning.

    Raises:
        UserError: the tokenizer is not a fast one, the template is no valid Jinja or does not read an argument, there
            is no EOS token to append.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        options: RenderOptions = _DEFAULTS,
        now: datetime | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                "model_name_or_path: its tokenizer has no fast version, which exact spans need; "
                "use a model that has a tokenizer.json"
            )
        if options.append_stop_token and tokenizer.eos_token is None:
            raise UserError("append_stop_token: the tokenizer has no EOS token to append; set it to false")
        self.tokenizer = tokenizer
        self.template = template
        self.options = options
        self._now = now or datetime.now()
        self.template_kwargs = dict(template_kwargs or {})
        self._variables = {**tokenizer.special_tokens_map, **self.template_kwargs}
        self._runner = TemplateRunner(template, variables=self._variables, now=self._now)
        self._runner.check_arguments(self.template_kwargs)
        self.style = self._runner.style
        self.takes_tools, self.takes_calls = self._runner.takes_tools, self._runner.takes_calls
        self._encoder = BatchEncoder.of(tokenizer)
        self._controls = ContentControls(tokenizer, options.content_control_tokens)
        self._prover = SpanProver(
            self._runner.run,
            source=template.source,
            stop_texts={*template.stop_tokens, *([tokenizer.eos_token] if tokenizer.eos_token else [])},
            control_texts=[token.content for token in tokenizer.added_tokens_decoder.values() if token.special],
            needs_terminator=not options.append_stop_token,
        )

    def render(self, messages: Sequence[Message], tools: Tools = ()) -> Rendered:
        """Render a conversation to text with its supervised character spans.

        Raises:
            RowError: the template refuses the conversation, or a span cannot be proven; the message says why.
        """
        messages = self.complete(messages)
        learned = learned_answers(messages, self.options.train_on)
        text, spelled_out = self._run(messages, tools, add_generation_prompt=False)
        needs_all = self.options.append_stop_token or self.options.train_on_prompt
        answers = self._prover.answers(text, messages, tools, None if needs_all else learned)
        if not answers:
            raise RowError("no supervised text: the chat template marks none as generated")
        left_out = find_left_out(text, messages)
        if self.options.append_stop_token:
            text, answers = append_stop_tokens(text, answers, self.tokenizer.eos_token)
        spans = supervised_spans(answers, learned, length=len(text), train_on_prompt=self.options.train_on_prompt)
        rendered = self._controls.treat(text, spans, spelled_out, left_out)
        return replace(rendered, are_generation_blocks=True) if self._prover.has_generation_blocks else rendered

    def complete(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with `default_system` before it where it has no system message."""
        default = self.options.default_system
        if default is None or any(message.role == "system" for message in messages):
            return messages
        return (Message("system", default), *messages)

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
        return self._encode_each(self.render, conversations)

    def encode_split(self, messages: Sequence[Message], tools: Tools, max_length: int) -> tuple[list[Encoded], int]:
        """Make several conversations of one that is too long, each of as many whole turns as fit.

        A turn is a user message with all that answers it. Each piece is rendered as a conversation of its own, begins
        with the system message if there is one, and is learned where the whole conversation is.

        Args:
            messages, tools: the conversation.
            max_length: of a piece, in tokens.

        Returns:
            The pieces, and the number of tokens of turns that are learned and too long on their own.

        Raises:
            RowError: as `render`.
        """
        system, turns = split_turns(self.complete(messages), self.options.train_on)
        pieces, tokens_left_out = [], 0
        while turns:
            fitting, best = 0, None
            for count in range(1, len(turns) + 1):
                (encoded,) = self.encode_batch([([*system, *itertools.chain(*turns[:count])], tools)])
                if isinstance(encoded, Encoded) and len(encoded.input_ids) > max_length:
                    break
                fitting, best = count, encoded
            if isinstance(best, Encoded):
                pieces.append(best)
            elif not fitting:
                tokens_left_out += len(encoded.input_ids)
            turns = turns[max(fitting, 1) :]
        return pieces, tokens_left_out

    def encode_prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Token ids of a conversation up to where the model begins to write its answer.

        Raises:
            RowError: the template refuses the conversation.
        """
        (encoded,) = self.encode_prompts([(messages, tools)])
        if isinstance(encoded, RowError):
            raise encoded
        return list(encoded.input_ids)

    def encode_prompts(self, conversations: Sequence[Conversation]) -> list[Encoded | RowError]:
        """Encode many conversations up to where the model begins to write its answer; see `encode_batch`."""
        return self._encode_each(self._render_prompt, conversations)

    @property
    def appends_stop_token(self) -> bool:
        """Whether answers really get an EOS token that the template does not write."""
        return self.options.append_stop_token and not self._prover.terminates_answers

    @property
    def probe_tools(self) -> Tools:
        """The tools without which the template refuses a plain conversation; empty where it does not."""
        return self._prover.probe_tools

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
    def call_terminators(self) -> tuple[str, ...]:
        """The control texts that end an answer that calls tools; empty where the template takes or ends none."""
        return self._prover.call_terminators

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The token ids at which generation ends: the template's terminators that are tokens, and EOS; ascending.

        Raises:
            RowError: the template writes no terminator.
        """
        stops = {*self.terminators, *self.call_terminators, *self.template.stop_tokens}
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
            "options": asdict(self.options),
        }
        if "strftime_now" in self.template.source:
            facts["date"] = self._now.date().isoformat()
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _render_prompt(self, messages: Sequence[Message], tools: Tools) -> Rendered:
        messages = self.complete(messages)
        text, spelled_out = self._run(messages, tools, add_generation_prompt=True)
        if self.options.append_stop_token:  # earlier answers end as they do in training
            answers = self._prover.answers(text, messages, tools)
            text, _ = append_stop_tokens(text, answers, self.tokenizer.eos_token)
        return self._controls.treat(text, (), spelled_out)

    def _encode_each(
        self, render: Callable[[Sequence[Message], Tools], Rendered], conversations: Sequence[Conversation]
    ) -> list[Encoded | RowError]:
        """Render conversations, and encode those together that could be rendered."""
        rendered = [_or_error(render, messages, tools) for messages, tools in conversations]
        encoded = iter(self._encode_rendered([item for item in rendered if isinstance(item, Rendered)]))
        return [item if isinstance(item, RowError) else next(encoded) for item in rendered]

    def _run(
        self, messages: Sequence[Message], tools: Tools, *, add_generation_prompt: bool
    ) -> tuple[TracedText, SpelledOut]:
        """A rendered conversation, and the control tokens that it spells out itself."""
        self._runner.check_place(messages, tools)
        text = self._runner.run(messages, tools, add_generation_prompt)
        again = partial(self._runner.run, add_generation_prompt=add_generation_prompt)
        return text, self._controls.find(text, messages, tools, again)

    def _encode_rendered(self, items: Sequence[Rendered]) -> list[Encoded | RowError]:
        plain = [item.text for item in items if item.aliased is None]
        aliased = [item.aliased for item in items if item.aliased is not None]
        tokens_of_plain = iter(self._encoder.encode(plain))
        tokens_of_aliased = iter(self._controls.tokens.encode_aliased(aliased) if aliased else ())
        return [to_tokens(item, next(tokens_of_aliased if item.aliased else tokens_of_plain)) for item in items]


def _or_error(
    render: Callable[[Sequence[Message], Tools], Rendered], messages: Sequence[Message], tools: Tools
) -> Rendered | RowError:
    try:
        return render(messages, tools)
    except RowError as error:
        return error

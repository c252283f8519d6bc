"""One chat template run over messages and tools, to text in which each character knows where it came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2

from component.config.errors import UserError
from component.data.jinja_trace import compile_template, find_variables
from component.data.message_style import MessageStyle, find_style, trace_message
from component.data.probes import CALLING, Tools
from component.data.rows import Message, RowError
from component.data.templates import ChatTemplate
from component.data.traced_text import ROW, TracedText
from component.data.traced_values import trace

# What a template may make of a row that it was not written for. Jinja runs the template as Python code, so its slips
# arrive as Python's own exceptions.
_TEMPLATE_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class TemplateRunner:
    """A compiled chat template.

    Args:
        template: the template.
        variables: special tokens and the user's own variables, for every conversation.
        now: the moment that `strftime_now` shows.

    Attributes:
        style: how the template wants its messages.
        takes_tools, takes_calls: whether it reads the tools of a conversation, and calls of tools.

    Raises:
        UserError: the template is no valid Jinja.
    """

    def __init__(self, template: ChatTemplate, *, variables: Mapping[str, Any], now: datetime) -> None:
        self.takes_calls = "tool_calls" in template.source
        self._variables = variables
        try:
            self._compiled = compile_template(template.source, now=now)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"template_name: {template.origin}, line {error.lineno}: {error.message}; correct the template"
            ) from None
        self._reads = find_variables(template.source)
        self.takes_tools = "tools" in self._reads
        self.style = find_style(template.source, self._run_in_style)

    def run(self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool) -> TracedText:
        """Render a conversation.

        Raises:
            RowError: the template refuses it.
        """
        return self._run(messages, tools, add_generation_prompt, self.style)

    def check_arguments(self, names: Iterable[str]) -> None:
        """Refuse arguments of the user's that the template does not read.

        Raises:
            UserError: naming the first.
        """
        own = sorted(self._reads - {"messages", "tools", "documents", "add_generation_prompt"})
        for name in names:
            if name not in self._reads:
                near = difflib.get_close_matches(name, own, n=1)
                reads = f"it reads {', '.join(own)}" if own else "it takes no arguments"
                hint = f"did you mean {near[0]}?" if near else f"{reads}; drop it"
                raise UserError(f"chat_template_kwargs: the chat template does not read {name!r}; {hint}")

    def check_place(self, messages: Sequence[Message], tools: Tools) -> None:
        """Refuse what the template would leave out without a word.

        Raises:
            RowError: it has no place for tools, or for calls of them.
        """
        if tools and not self.takes_tools:
            raise RowError("the chat template has no place for tools")
        if any(message.tool_calls for message in messages) and not self.takes_calls:
            raise RowError("the chat template has no place for tool calls")

    def _run_in_style(self, style: MessageStyle, tools: Tools) -> TracedText:
        return self._run(CALLING, tools, False, style)

    def _run(
        self, messages: Sequence[Message], tools: Tools, add_generation_prompt: bool, style: MessageStyle
    ) -> TracedText:
        variables = dict(
            messages=[trace_message(message, index, style) for index, message in enumerate(messages)],
            tools=trace(tools, ROW) or None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
        )
        try:
            return self._compiled.render(**{**variables, **self._variables})  # type: ignore[return-value]
        except _TEMPLATE_FAILURES as error:
            raise RowError(f"refused by the chat template: {error}") from None

"""The page on chat templates: which of a folder's templates render exactly, with what settings, and why others not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from component.data.render import Renderer
from component.data.rendered import Rendered, RenderOptions
from component.data.rows import Message, RowError
from component.data.templates import load_chat_template


@dataclass(frozen=True)
class Setting:
    """What a template needs that a test tokenizer does not bring.

    Attributes:
        eos_token: the EOS token of the template's own tokenizer, where nothing else tells which of its control texts
            is the terminator.
        template_kwargs: variables that the template cannot do without, or that make it write a terminator.
        needs_bos: whether it fails with a tokenizer that has no BOS token, unless it is told so.
    """

    eos_token: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    needs_bos: bool = False

    def kwargs_for(self, tokenizer: Any) -> dict[str, Any]:
        """The variables that this tokenizer's conversations need."""
        is_told = self.needs_bos and tokenizer.bos_token is None
        return {**self.template_kwargs, **({"bos_token": ""} if is_told else {})}


_COHERE = Setting("<|END_OF_TURN_TOKEN|>")
SETTINGS: Mapping[str, Setting] = {
    "Cohere2MoE": _COHERE,
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": _COHERE,
    "CohereForAI-c4ai-command-r-plus-tool_use": _COHERE,
    "MiniMax-M2": Setting("[e~["),
    "Apriel-1.6-15b-Thinker-fixed": Setting(template_kwargs={"training_prompt": True}),
    "fireworks-ai-llama-3-firefunction-v2": Setting(
        "<|eot_id|>", {"functions": "[]", "datetime": "2025-01-31"}, needs_bos=True
    ),
    "meetkai-functionary-medium-v3.1": Setting(needs_bos=True),
    "meetkai-functionary-medium-v3.2": Setting(needs_bos=True),
}
EQUAL = "equal"
REFUSED = "refused"
_HEADER = """# Chat templates

Each template of the test assets, with each test tokenizer, over a plain conversation and one with a tool call.
"equal": token ids equal `apply_chat_template`'s and the span of every answer is proven, from the end of the generation
prompt to the terminator. "with ...": equal so; the reason for which other rows are refused stands below the table. With
`append_stop_token` the text equals the template's but for the EOS token at the end of each answer that lacks a
terminator. Every row that is refused is counted and reported with its reason; what the chat template refuses,
transformers refuses too.

Where only the EOS token of its own tokenizer tells a template's terminator, that is set as the test tokenizer's. A
terminator that the test tokenizer does not know is text to it; training with that pair would be refused at the start.
Written by `python script/write_docs.py`.

"""
_CALL = {"type": "function", "id": "call00001", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}
_PLAIN = (
    Message("user", "What is up?"),
    Message("assistant", "The sky."),
    Message("user", "And down?"),
    Message("assistant", "The sea."),
)
_CALLING = (
    Message("user", "Is it sunny?"),
    Message("assistant", "", tool_calls=(_CALL,)),
    Message("tool", "sunny", tool_call_id="call00001", name="get_weather"),
    Message("assistant", "It is."),
)


@dataclass(frozen=True)
class Outcome:
    """How a template does on one kind of conversation.

    Attributes:
        is_equal: whether ids are equal and spans proven.
        uses_tools: whether the conversation comes with tools.
        template_kwargs, append_stop_token: with what settings.
        remedies: what of these is not the default, in words.
        reason: why it is refused with the defaults; empty where it is not.
    """

    is_equal: bool
    uses_tools: bool
    template_kwargs: Mapping[str, Any]
    append_stop_token: bool
    remedies: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        if not self.is_equal:
            return REFUSED
        return f"{EQUAL} {' and '.join(self.remedies)}" if self.remedies else EQUAL


def template_page(files: Sequence[Path], tokenizers: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        files: the templates.
        tokenizers: fast tokenizers by name.
    """
    columns = [f"{kind}, {name}" for name in tokenizers for kind in ("plain", "tool call")]
    lines = [f"| template | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    reasons = []
    for file in files:
        outcomes = [outcome for tokenizer in tokenizers.values() for outcome in try_template(file, tokenizer)]
        lines.append(f"| {file.stem} | {' | '.join(map(str, outcomes))} |")
        by_reason: dict[str, list[str]] = {}
        for column, outcome in zip(columns, outcomes, strict=True):
            if outcome.reason:
                by_reason.setdefault(outcome.reason, []).append(column)
        reasons += [f"| {file.stem} | {'; '.join(where)} | {_cell(why)} |" for why, where in by_reason.items()]
    table = "\n".join(lines)
    why = "\n".join(["| template | conversation | reason |", "|---|---|---|", *reasons])
    return f"{_HEADER}{table}\n\n## Why rows are refused with the default settings\n\n{why}\n"


def try_template(file: Path, tokenizer: Any) -> tuple[Outcome, Outcome]:
    """How a template does on a plain conversation and on one with a tool call."""
    with own_eos(file.stem, tokenizer):
        return _try_ways(file, tokenizer, _PLAIN, uses_tools=False), _try_ways(
            file, tokenizer, _CALLING, uses_tools=True
        )


@contextmanager
def own_eos(name: str, tokenizer: Any) -> Iterator[None]:
    """Give a tokenizer the EOS token that template `name` needs, for a while."""
    setting = SETTINGS.get(name, Setting())
    eos = tokenizer.eos_token
    tokenizer.eos_token = setting.eos_token or eos
    try:
        yield
    finally:
        tokenizer.eos_token = eos


def _try_ways(file: Path, tokenizer: Any, messages: Sequence[Message], *, uses_tools: bool) -> Outcome:
    """The first way, from the default on, in which a template is equal; the default's refusal if there is none."""
    own_kwargs = SETTINGS.get(file.stem, Setting()).kwargs_for(tokenizer)
    ways = itertools.product((False, True), ({}, own_kwargs) if own_kwargs else ({},), (False, True))
    first_reason = ""
    for changes_tools, kwargs, appends in sorted(ways, key=lambda way: (sum(map(bool, way)), way[2])):
        has_tools = uses_tools != changes_tools
        reason = _try(file, tokenizer, messages, has_tools=has_tools, kwargs=kwargs, appends=appends)
        first_reason = first_reason or reason
        if not reason:
            remedies = (
                ("with tools" if has_tools else "without tools") if changes_tools else "",
                f"with `{json.dumps(kwargs)}`" if kwargs else "",
                "with `append_stop_token`" if appends else "",
            )
            return Outcome(True, has_tools, kwargs, appends, tuple(filter(None, remedies)), first_reason)
    return Outcome(False, uses_tools, {}, False, (), first_reason)


def _try(
    file: Path,
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    has_tools: bool,
    kwargs: Mapping[str, Any],
    appends: bool,
) -> str:
    """Why a conversation is not rendered exactly; empty where it is."""
    options = RenderOptions(append_stop_token=appends)
    renderer = Renderer(tokenizer, load_chat_template(str(file), tokenizer), template_kwargs=kwargs, options=options)
    tools = (_TOOL,) if has_tools else ()
    reference = partial(
        tokenizer.apply_chat_template,
        [renderer.style.write(message) for message in messages],
        tools=[dict(tool) for tool in tools] or None,
        chat_template=renderer.template.source,
        **kwargs,
    )
    try:
        rendered, encoded = renderer.render(messages, tools), renderer.encode(messages, tools)
    except RowError as error:
        return str(error) if _refuses(reference) or "refused by" not in str(error) else f"only here {error}"
    if not appends:
        return "" if list(encoded.input_ids) == reference(return_dict=False) else "different token ids"
    is_same = equals_but_for_stop_tokens(rendered, reference(tokenize=False), tokenizer.eos_token)
    return "" if is_same else "different text"


def equals_but_for_stop_tokens(rendered: Rendered, reference: str, stop: str) -> bool:
    """Whether a text is the reference with `stop` at the end of each span that lacks it."""
    position = at = 0
    for _, end in rendered.spans:
        piece = rendered.text[position:end]
        if not reference.startswith(piece, at):
            piece = piece.removesuffix(stop)
        if not reference.startswith(piece, at):
            return False
        position, at = end, at + len(piece)
    return rendered.text[position:] == reference[at:]


def _refuses(reference: Callable[..., Any]) -> bool:
    """Whether transformers fails too; its templates are Python code, so that it may fail in any way."""
    try:
        reference(tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return True
    return False


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")

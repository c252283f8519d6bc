"""The page on chat templates: which of a folder's templates render exactly, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.data.render import Renderer
from component.data.rows import Message, RowError
from component.data.templates import load_chat_template

#: The terminator of a template that only the EOS token of its own tokenizer tells.
OWN_EOS = {
    "Cohere2MoE": "<|END_OF_TURN_TOKEN|>",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "<|END_OF_TURN_TOKEN|>",
    "MiniMax-M2": "[e~[",
}
EQUAL = "equal"
_HEADER = """# Chat templates

Each template of the test assets, with each test tokenizer, over a plain conversation and one with a tool call.
"equal": token ids equal `apply_chat_template`'s and the span of every answer is proven. Otherwise the reason for which
every such row is rejected. A template that writes no terminator trains with `append_stop_token: true`. Where a
template's terminator is only told by its own tokenizer's EOS token, that is set as the tokenizer's.
Written by `python script/write_docs.py`.

"""
_CALL = {"type": "function", "id": "call00001", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}},
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


def template_page(files: Sequence[Path], tokenizers: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        files: the templates.
        tokenizers: fast tokenizers by name.
    """
    columns = [f"{kind}, {name}" for name in tokenizers for kind in ("plain", "tool call")]
    lines = [f"| template | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for file in files:
        outcomes = [outcome for tokenizer in tokenizers.values() for outcome in try_template(file, tokenizer)]
        cells = [outcome.replace("|", "\\|").replace("\n", " ") for outcome in outcomes]
        lines.append(f"| {file.stem} | {' | '.join(cells)} |")
    return _HEADER + "\n".join(lines) + "\n"


def try_template(file: Path, tokenizer: Any) -> tuple[str, str]:
    """`EQUAL` or the reason of the refusal, for a plain conversation and for one with a tool call."""
    eos = tokenizer.eos_token
    tokenizer.eos_token = OWN_EOS.get(file.stem, eos)
    try:
        renderer = Renderer(tokenizer, load_chat_template(str(file), tokenizer))
        return _try(renderer, _PLAIN, ()), _try(renderer, _CALLING, (_TOOL,))
    except UserError as error:
        return str(error), str(error)
    finally:
        tokenizer.eos_token = eos


def _try(renderer: Renderer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
    try:
        ids = renderer.encode(messages, tools).input_ids
    except RowError as error:
        return str(error)
    expected = renderer.tokenizer.apply_chat_template(
        [renderer.style.write(message) for message in messages],
        tools=[dict(tool) for tool in tools] or None,
        chat_template=renderer.template.source,
        return_dict=False,
    )
    return EQUAL if list(ids) == expected else "different token ids"

"""Chat templates: the tokenizer's own, the user's file, or a named one from the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from component.config.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLDER = Path(__file__).parent / "chat_templates"

# Named template -> the control token that ends a turn, None where that is the tokenizer's own EOS token. The text of
# each is in chat_templates/<name>.jinja.
NAMED_TEMPLATES: dict[str, str | None] = {
    "default": None,
    "alpaca": None,
    "chatml": "<|im_end|>",
    "internlm": None,
    "internlm2": "<|im_end|>",
    "qwen": "<|im_end|>",
    "yi": "<|im_end|>",
    "orion": None,
    "deepseek": None,
    "chatglm2": None,
    "chatglm3": None,
    "ziya2": None,
    "xverse": None,
    "minicpm": None,
    "minicpm3": "<|im_end|>",
    "zephyr": None,
    "mistral": None,
    "mixtral": None,
    "baichuan": None,
    "baichuan2": None,
    "vicuna": None,
    "llama2": None,
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
    "llama3.1": "<|eot_id|>",
    "qwen3": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "phi4": "<|im_end|>",
    "deepseek-r1": "<｜end▁of▁sentence｜>",
}


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template ready for one tokenizer.

    Attributes:
        name: what the config asked for.
        source: the Jinja text; as a tokenizer's `chat_template` it renders the same everywhere.
        origin: where the source came from, for people.
        stop_tokens: control texts that are known to end a turn; empty where only the template itself tells.
        notices: what was adapted to the tokenizer, a sentence each.
    """

    name: str
    source: str
    origin: str
    stop_tokens: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def template_names() -> tuple[str, ...]:
    """The names of the table, without `auto`."""
    return tuple(NAMED_TEMPLATES)


def load_chat_template(template_name: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The template that a config's `template_name` means.

    Args:
        template_name: `auto` for the tokenizer's own, a path that ends in `.jinja`, or a name of the table.
        tokenizer: the tokenizer that will encode what the template renders.

    Raises:
        UserError: the tokenizer has no template of its own, the file is missing, the name is unknown.
    """
    if template_name == "auto":
        return _load_own(tokenizer)
    if template_name.endswith(".jinja"):
        return _load_file(template_name)
    if template_name not in NAMED_TEMPLATES:
        raise UserError(f"template_name: there is no template {template_name!r}; {_choices()}")
    return _load_named(template_name, tokenizer)


def _load_own(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if not source:
        raise UserError(f"template_name: got auto, but the tokenizer has no chat template of its own; {_choices()}")
    return ChatTemplate("auto", source, "the tokenizer's own chat template")


def _load_file(path: str) -> ChatTemplate:
    file = Path(path).absolute()
    try:
        source = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"template_name: there is no file {file}; correct the path, or {_choices()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template_name: cannot read {file}: {error}; make it a readable UTF-8 file") from None
    return ChatTemplate(path, source, str(file))


def _load_named(name: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """A template of the table, which ends its turns in a way that this tokenizer's models can learn to stop at."""
    source = (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    origin = f"the named template {name}"
    eos = tokenizer.eos_token
    stop = NAMED_TEMPLATES[name]
    if stop is None and eos is None:
        raise UserError(
            f"template_name: {name} ends a turn with the EOS token, which this tokenizer lacks; choose another template"
        )
    if stop is None or is_control_token(stop, tokenizer):
        return ChatTemplate(name, source, origin, (stop or eos,))
    if eos is None:
        raise UserError(
            f"template_name: {name} ends a turn with {stop!r}, which is no token of this tokenizer, and there is no "
            "EOS token to end it with instead; choose another template"
        )
    notice = (
        f"template_name: {name} ends a turn with {stop!r}, which is no control token of this tokenizer; it is trained "
        f"on as text, and the tokenizer's EOS token {eos!r} follows it so that generation stops"
    )
    # The files take `end_of_turn` from here when it is set; so the source stays whole wherever it is exported to.
    source = f"{{%- set end_of_turn = '{stop}' + eos_token -%}}\n{source}"
    return ChatTemplate(name, source, origin, (eos,), (notice,))


def is_control_token(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether `text` is one added token of the tokenizer, so that no ordinary text is ever encoded to it."""
    return any(token.content == text for token in tokenizer.added_tokens_decoder.values())


def _choices() -> str:
    return f"use the path of a .jinja file, or one of: {', '.join(template_names())}"

"""What makes tokens of a run's rows: a renderer proven by its self-test, or an encoder of plain text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from component.config.schema import DataSection
from component.data.encoders.build import build_row_encoder
from component.data.encoders.interface import RowEncoder
from component.data.fingerprint import hash_tokenizer
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.self_test import run_self_test
from component.data.templates import load_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rendering:
    """An encoder and what is known of it.

    Attributes:
        encoder: of the rows.
        renderer: of conversations; None for plain text, and where there is no template.
        stop_token_ids: tokens that end an answer or a document.
        hashes: of tokenizer and template.
        proven: what the self-test has shown.
        notices: what was adapted to the tokenizer.
    """

    encoder: RowEncoder
    renderer: Renderer | None
    stop_token_ids: tuple[int, ...]
    hashes: dict[str, str]
    proven: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def chat_template(self) -> str | None:
        """The Jinja text that conversations are rendered with; None where there is none."""
        return None if self.renderer is None else self.renderer.template.source


def build_rendering(
    data: DataSection, tokenizer: PreTrainedTokenizerBase, row_kind: str, *, keep_text: bool = False
) -> Rendering:
    """Build the encoder for a kind of rows and prove it.

    Args:
        data: the config's data section.
        tokenizer: the model's.
        row_kind: what the task trains on, as formats name it.
        keep_text: whether samples carry the text that their ids encode.

    Raises:
        UserError: the template or the tokenizer cannot be used.
    """
    # Segments need no template; without one the encoder refuses conversations.
    if row_kind == "text" or (data.template_name == "auto" and not tokenizer.chat_template):
        encoder = build_row_encoder(data, row_kind, tokenizer, None, keep_text=keep_text)
        stops = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        return Rendering(encoder, None, stops, {"tokenizer": hash_tokenizer(tokenizer)})
    renderer = Renderer(
        tokenizer,
        load_chat_template(data.template_name, tokenizer),
        template_kwargs=data.chat_template_kwargs,
        options=RenderOptions(
            append_stop_token=data.append_stop_token,
            # Preferences compare whole answers; prompts have none.
            train_on_prompt=data.train_on_prompt and row_kind == "messages",
            train_on=data.train_on if row_kind == "messages" else "all",
            default_system=data.default_system,
            content_control_tokens=data.content_control_tokens,
        ),
        now=datetime.fromisoformat(data.template_date) if data.template_date else None,
    )
    test = run_self_test(renderer)
    hashes = {"tokenizer": hash_tokenizer(tokenizer), "template": renderer.fingerprint()}
    encoder = build_row_encoder(data, row_kind, tokenizer, renderer, keep_text=keep_text)
    return Rendering(encoder, renderer, renderer.stop_token_ids, hashes, test.proven, test.notices)

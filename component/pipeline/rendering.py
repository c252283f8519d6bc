"""What makes tokens of a run's rows: a renderer proven by its self-test, or an encoder of plain text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from component.config.schema import DataSection
from component.data.fingerprint import hash_tokenizer
from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.segment_encoder import SegmentEncoder
from component.data.self_test import run_self_test
from component.data.templates import load_chat_template
from component.data.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rendering:
    """An encoder and what is known of it.

    Attributes:
        encoder: of conversations, of plain text, or of segments where there is no template.
        stop_token_ids: tokens that end an answer or a document.
        hashes: of tokenizer and template.
        proven: what the self-test has shown.
        notices: what was adapted to the tokenizer.
    """

    encoder: Renderer | TextEncoder | SegmentEncoder
    stop_token_ids: tuple[int, ...]
    hashes: dict[str, str]
    proven: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def chat_template(self) -> str | None:
        """The Jinja text that conversations are rendered with; None for plain text."""
        return self.encoder.template.source if isinstance(self.encoder, Renderer) else None


def build_rendering(data: DataSection, tokenizer: PreTrainedTokenizerBase, row_kind: str) -> Rendering:
    """Build the encoder for a kind of rows and prove it.

    Raises:
        UserError: the template or the tokenizer cannot be used.
    """
    if row_kind == "text":
        return Rendering(TextEncoder(tokenizer), (tokenizer.eos_token_id,), {"tokenizer": hash_tokenizer(tokenizer)})
    if data.template_name == "auto" and not tokenizer.chat_template:
        # Segments need no template; prepare_data refuses conversations.
        segments = SegmentEncoder(
            tokenizer, append_stop_token=data.append_stop_token, train_on_prompt=data.train_on_prompt
        )
        stops = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        return Rendering(segments, stops, {"tokenizer": hash_tokenizer(tokenizer)})
    renderer = Renderer(
        tokenizer,
        load_chat_template(data.template_name, tokenizer),
        template_kwargs=data.chat_template_kwargs,
        options=RenderOptions(
            append_stop_token=data.append_stop_token,
            train_on_prompt=data.train_on_prompt,
            train_on=data.train_on,
            default_system=data.default_system,
            content_control_tokens=data.content_control_tokens,
        ),
        now=datetime.fromisoformat(data.template_date) if data.template_date else None,
    )
    test = run_self_test(renderer)
    hashes = {"tokenizer": hash_tokenizer(tokenizer), "template": renderer.fingerprint()}
    return Rendering(renderer, renderer.stop_token_ids, hashes, test.proven, test.notices)

"""The encoder of a run's rows, from the data section of its config."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from component.config.errors import UserError
from component.config.schema import DataSection
from component.data.encoders.conversations import ConversationEncoder
from component.data.encoders.documents import DocumentEncoder
from component.data.encoders.interface import RowEncoder
from component.data.encoders.pairs import PairEncoder
from component.data.encoders.prompts import PromptEncoder
from component.data.encoders.whole_rows import WholeRowEncoder
from component.data.render import Renderer
from component.data.truncation import LengthLimit
from component.registry import TRUNCATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_row_encoder(
    data: DataSection,
    row_kind: str,
    tokenizer: PreTrainedTokenizerBase,
    renderer: Renderer | None,
    *,
    keep_text: bool = False,
) -> RowEncoder:
    """Build the encoder for a kind of rows.

    Args:
        data: the config's data section.
        row_kind: what the task trains on, as formats name it.
        tokenizer: any tokenizer.
        renderer: of conversations; None where there is no template, or the rows need none.
        keep_text: whether samples carry the text that their ids encode.

    Raises:
        UserError: max_seq_length leaves nothing to predict, the rows cannot be cut as `truncation` says, or the
            tokenizer lacks what they need.
    """
    if data.max_seq_length < 2:
        raise UserError("max_seq_length: got 1; use at least 2: a single token has nothing to predict")
    if row_kind == "text":
        return DocumentEncoder(tokenizer, data.max_seq_length, keep_text=keep_text)
    choices = TRUNCATIONS[row_kind]
    if data.truncation not in choices:  # of a plugin's task; the config's own rules know the others
        ways = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UserError(f"truncation: {data.truncation} does not fit rows of the kind {row_kind}; use {ways}")
    encoder = WholeRowEncoder(
        tokenizer,
        renderer,
        append_stop_token=data.append_stop_token,
        train_on_prompt=data.train_on_prompt and row_kind == "messages",
        content_control_tokens=data.content_control_tokens,
    )
    room = data.max_completion_length if row_kind == "prompt" else 0
    limit = LengthLimit(data.max_seq_length, data.truncation, choices, max_completion_length=room)
    return _ENCODERS[row_kind](encoder, limit, keep_text=keep_text)


_ENCODERS: dict[str, Callable[..., RowEncoder]] = {
    "messages": ConversationEncoder,
    "labelled": partial(ConversationEncoder, row_kind="labelled"),
    "preference": PairEncoder,
    "prompt": PromptEncoder,
}

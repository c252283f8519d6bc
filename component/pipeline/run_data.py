"""The tokens of a run: tokenizer, template, data. Training, `--dry_run` and inspect_data.py all begin with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from component.config.load import Config
from component.data.prepare import PreparedData, prepare_data
from component.models.tokenizer import load_tokenizer
from component.pipeline.rendering import Rendering, build_rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RunData:
    """The data of a run, and what made its tokens.

    Attributes:
        rendering: what made the tokens; its renderer makes prompts too.
        notices: what was adapted to tokenizer and template, one line each.
    """

    tokenizer: PreTrainedTokenizerBase
    rendering: Rendering
    data: PreparedData
    notices: tuple[str, ...]


def prepare_run_data(
    config: Config,
    row_kind: str,
    *,
    needs_model: bool = True,
    refuse_bad_rows: bool = True,
    keep_text: bool = False,
) -> RunData:
    """Load the tokenizer, prove the template and prepare the data. Imports transformers: Unsloth must come before.

    Args:
        config: its sections on the model and the data.
        row_kind: what the task trains on, as formats name it.
        needs_model: whether there must be a model beside its tokenizer.
        refuse_bad_rows: see `prepare_data`.
        keep_text: whether samples carry the text that their ids encode; they are cached apart from those without.

    Raises:
        UserError: tokenizer, template or data cannot be used.
    """
    loaded = load_tokenizer(config.model, needs_model=needs_model)
    rendering = build_rendering(config.data, loaded.tokenizer, row_kind, keep_text=keep_text)
    data = prepare_data(config.data, rendering.encoder, refuse_bad_rows=refuse_bad_rows)
    return RunData(loaded.tokenizer, rendering, data, (*loaded.notices, *rendering.notices))

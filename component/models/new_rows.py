"""Rows of input embeddings and output head for tokens that a model did not have: made, started, trained, saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from component.config.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def add_rows(model: PreTrainedModel, parts: Mapping[int, Sequence[int]]) -> str | None:
    """Give new tokens their rows, each the mean of the rows of the tokens that its text was made of before.

    So the model starts by reading a new token as about what it read in its place, and its logit lies among those of
    usual tokens. A row drawn at random, or left as it lay unused in a padded vocabulary, can outweigh them all
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html). Nothing is drawn: the same tokens start the same.

    Args:
        parts: id of each new token -> ids of its text before; none of these is new.

    Returns:
        A notice, None without new tokens.

    Raises:
        UserError: the rows are quantized.
    """
    import torch

    if not parts:
        return None
    before = model.get_input_embeddings().num_embeddings
    if any(not weight.is_floating_point() for weight in _matrices(model)):
        raise UserError("new_tokens: embeddings or output head are quantized and get no rows; use a 16-bit checkpoint")
    _resize(model, max(parts) + 1)
    with torch.no_grad():
        for matrix in _matrices(model):
            known = matrix[:before].float()
            for token_id, pieces in parts.items():
                matrix[token_id] = (known[list(pieces)] if pieces else known).mean(dim=0).to(matrix.dtype)
    after = model.get_input_embeddings().num_embeddings
    size = f"the vocabulary grows from {before:,} to {after:,} rows" if after > before else "unused rows take them up"
    return f"new_tokens: {len(parts)} tokens are new, {size}; each starts as the mean of its former parts"


def make_room_for(model: PreTrainedModel, config: LoraConfig, weights: Mapping[str, Tensor]) -> bool:
    """Give a base as many rows as a saved adapter has tokens for; the adapter brings what is in the new ones.

    Args:
        config, weights: of the adapter.

    Returns:
        Whether it had too few.
    """
    import torch

    before = model.get_input_embeddings().num_embeddings
    indices = config.trainable_token_indices or {}
    lists = indices.values() if isinstance(indices, Mapping) else [indices]
    needed = [max(ids) + 1 for ids in lists if ids]
    saved = [weights.get(f"base_model.model.{path}.weight") for path in _layers(model)]
    needed += [len(weight) for weight in saved if weight is not None]
    if max(needed, default=0) <= before:
        return False
    _resize(model, max(needed))
    with torch.no_grad():
        for matrix in _matrices(model):
            matrix[before:] = matrix[:before].float().mean(dim=0).to(matrix.dtype)
    return True


def rows_to_train(
    model: PreTrainedModel, token_ids: Sequence[int], saved_modules: Sequence[str]
) -> dict[str, list[int]] | None:
    """What PEFT takes as `trainable_token_indices`: the rows of new tokens, by module.

    Args:
        token_ids: of the new tokens.
        saved_modules: names of modules that are trained in full beside the adapter, and so need no such rows.

    Returns:
        None where there is nothing to train.
    """
    layers = _layers(model)
    in_full = {path for path in layers if any(path == name or path.endswith(f".{name}") for name in saved_modules)}
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        # PEFT lets the head follow the embeddings.
        layers = [] if in_full else layers[:1]
    return {path: list(token_ids) for path in layers if path not in in_full} or None if token_ids else None


def save_new_rows_alone(model: PeftModel) -> None:
    """Let an adapter be saved without the whole matrices that its new rows stand in.

    PEFT adds them to every checkpoint once the vocabulary has grown: 2 GB for Llama 3. What is trained of them is saved
    with the adapter anyway.
    """
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)


def _resize(model: PreTrainedModel, num_rows: int) -> None:
    if num_rows > model.get_input_embeddings().num_embeddings:
        # Its own start of the rows would be drawn from a distribution.
        model.resize_token_embeddings(num_rows, mean_resizing=False)


def _layers(model: PreTrainedModel) -> list[str]:
    """Names of input embeddings and, where there is one, output head."""
    wanted = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(module)] for module in wanted if module is not None]


def _matrices(model: PreTrainedModel) -> list[Tensor]:
    """Weights with a row for each token, shared ones once; the bias of a head has an entry for each."""
    modules: list[nn.Module | None] = [model.get_input_embeddings(), model.get_output_embeddings()]
    values = [value for module in modules if module is not None for value in module.parameters(recurse=False)]
    return list({id(value): value for value in values}.values())

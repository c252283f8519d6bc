"""MLPs computed tile by tile of tokens, so that what is widest in a model never exists for all of a long row at once.

As in Arctic's long sequence training (https://arxiv.org/abs/2506.13996): an MLP treats each token by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from component.config.errors import UserError
from component.models.decoder_layers import find_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Unsloth's MLP of Gemma, which cannot be told to leave its input alone.
ALWAYS_IN_PLACE = "apply_lora_mlp_geglu_approx"


def tile_mlps(model: PreTrainedModel) -> int:
    """Have the dense MLPs of a model work on as many tokens at once as its hidden states have features.

    What a loader has put in the place of an MLP's own forward is called tile by tile. Each tile is computed again in
    the backward pass, whether its layer is checkpointed or not.

    Returns:
        Tokens of a tile.

    Raises:
        UserError: no layer has a dense MLP under the name `mlp`.
    """
    _, layers = find_layers(model)
    mlps = [mlp for layer in layers if is_dense(mlp := getattr(layer, "mlp", None))]
    if not mlps:
        raise UserError(
            f"tiled_mlp: the layers of this {model.config.model_type} model have no dense module called mlp; "
            "drop tiled_mlp"
        )
    tile = model.config.get_text_config().hidden_size
    for mlp in mlps:
        mlp.forward = partial(forward_in_tiles, _leaving_inputs(mlp.forward), tile_tokens=tile)
    return tile


def is_dense(mlp: nn.Module | None) -> bool:
    """Whether a module is linear layers and what is between them, without experts and their router."""
    if mlp is None:
        return False
    # PEFT puts its layers around them.
    linear = [child for child in mlp.children() if isinstance(getattr(child, "base_layer", child), nn.Linear)]
    has_experts = any("expert" in name or name == "gate" for name, _ in mlp.named_modules())
    return len(linear) >= 2 and not has_experts


def forward_in_tiles(whole: Callable[[Tensor], Tensor], hidden: Tensor, *, tile_tokens: int) -> Tensor:
    """What an MLP makes of hidden states of shape (B, L, H).

    Args:
        whole: the MLP on all tokens that it gets, of shape (1, T, H).
    """
    rows = hidden.flatten(0, -2)[None]
    if rows.shape[1] <= tile_tokens:
        return whole(hidden)
    tiles = rows.split(tile_tokens, dim=1)
    if torch.is_grad_enabled():
        checkpoint = _own_checkpoint()
        parts = [checkpoint(whole, tile, use_reentrant=False) for tile in tiles]
    else:
        parts = [whole(tile) for tile in tiles]
    return torch.cat(parts, dim=1).view(*hidden.shape[:-1], -1)


def _own_checkpoint() -> Callable[..., Tensor]:
    """torch's own. Unsloth puts another in its place, whose one buffer a checkpoint within a checkpoint overwrites."""
    module = torch.utils.checkpoint
    return getattr(module, "_unsloth_pristine_checkpoint", None) or module.checkpoint


def _leaving_inputs(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Unsloth's MLPs write the gradient of their input over the input, which other tiles still share."""
    if "inplace" in inspect.signature(forward).parameters:
        return partial(forward, inplace=False)
    name = getattr(getattr(forward, "__func__", None), "__name__", None)
    return (lambda tile: forward(tile.clone())) if name == ALWAYS_IN_PLACE else forward

"""Modules that are trained in full beside an adapter, and saved with it (PEFT's modules_to_save)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from component.config.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def check_saved_modules(model: PreTrainedModel, names: Sequence[str]) -> list[str] | None:
    """Hold `modules_to_save` against a loaded base.

    Returns:
        What PEFT takes: the names, None without any.

    Raises:
        UserError: a name matches no module, or one with layers that have no gradient.
    """
    for name in names:
        found = [module for path, module in model.named_modules() if path == name or path.endswith(f".{name}")]
        if not found:
            raise UserError(f"modules_to_save: no module is called {name!r}; embed_tokens and lm_head are usual")
        if any(not value.is_floating_point() for module in found for value in module.parameters()):
            raise UserError(f"modules_to_save: {name!r} is quantized and cannot be trained in full; leave it out")
    return list(names) or None


def are_tied(model: PreTrainedModel, names: Sequence[str]) -> bool:
    """Whether embeddings that the output head shares are among the names, so that both are to stay one."""
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return False
    shared = (model.get_input_embeddings(), model.get_output_embeddings())
    ends = {name.rsplit(".", 1)[-1] for name in names}
    return any(module in shared and path.rsplit(".", 1)[-1] in ends for path, module in model.named_modules())


def train_in_float32(model: PeftModel, dtype: torch.dtype) -> None:
    """Give trained copies of modules float32 weights, as adapters have them, and what is around them its own format.

    Small updates of 16-bit weights would be lost.

    Args:
        dtype: the number format of the base.
    """
    import torch
    from peft.utils import ModulesToSaveWrapper

    if dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for copy in module.modules_to_save.values():
                copy.float()
                copy.register_forward_pre_hook(_to_float32)
                copy.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if value.is_floating_point() else value for value in inputs)

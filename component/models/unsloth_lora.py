"""Unsloth's layers on the fused adapters of `component.models.fused_lora`, where their base is in 16 bit.

The seam are three attributes that Unsloth itself sets on each layer: `self_attn.apply_qkv`, `self_attn.apply_o` and
`mlp.forward`. What they held serves evaluation, generation and passes without the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from component.models.decoder_layers import find_layers
from component.models.unsloth_attention import SEAM_VERSIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from component.models.fused_lora import Adapted

QUERY_KEY_VALUE, OUTPUT, MLP = ("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj")
#: What Unsloth calls an MLP with adapters -> its kernels of the activation, in unsloth.kernels.
ACTIVATIONS = {
    "apply_lora_mlp_swiglu": ("swiglu_fg_kernel", "swiglu_DWf_DW_dfg_kernel"),
    "apply_lora_mlp_geglu_exact": ("geglu_exact_forward_kernel", "geglu_exact_backward_kernel"),
    "apply_lora_mlp_geglu_approx": ("geglu_approx_forward_kernel", "geglu_approx_backward_kernel"),
}
ADAPTER = "default"


@dataclass(frozen=True)
class FusedAdapters:
    """What was fused.

    Attributes:
        attentions, outputs, mlps: numbers of query/key/value groups, output projections and MLPs.
        num_layers: that the model has.
        obstacle: why nothing was; None where something was.
    """

    attentions: int = 0
    outputs: int = 0
    mlps: int = 0
    num_layers: int = 0
    obstacle: str | None = None

    def describe(self) -> str:
        """In words, for run.json."""
        if self.obstacle is not None:
            return f"no: {self.obstacle}"
        return f"query/key/value {self.attentions}, output {self.outputs}, mlp {self.mlps} of {self.num_layers} layers"


def fuse_adapters(model: Any, *, kernels: ModuleType, unsloth_version: str) -> FusedAdapters:
    """Let the layers of a model train through fused adapters wherever all projections of a group allow it.

    Args:
        model: PeftModel that Unsloth has prepared.
        kernels: Unsloth's module of that name.
    """
    if unsloth_version not in SEAM_VERSIONS:
        known = " or ".join(SEAM_VERSIONS)
        return FusedAdapters(obstacle=f"layers are reached in Unsloth {known} only, and this is {unsloth_version}")
    _, layers = find_layers(model.get_base_model())
    counts = [0, 0, 0]
    for layer in layers:
        for place, fuse in enumerate((_fuse_query_key_value, _fuse_output, partial(_fuse_mlp, module=kernels))):
            counts[place] += fuse(layer)
    if not any(counts):
        return FusedAdapters(obstacle="no group of projections has a plain adapter on a 16-bit base")
    return FusedAdapters(*counts, num_layers=len(layers))


class _Fused:
    """A fused group in the place of what Unsloth calls.

    Args:
        owner: the module whose `training` decides.
        layers: the group's adapted layers.
        dtype: that they compute in.
        fallback: what was called before.
    """

    def __init__(
        self, owner: nn.Module, layers: Sequence[Any], dtype: Any, fused: Callable[..., Any], fallback: Any
    ) -> None:
        self._owner, self._layers, self._dtype = owner, layers, dtype
        self._fused, self._fallback = fused, fallback

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        x: Tensor = arguments[-1]
        if self._owner.training and x.dtype == self._dtype and all(map(_is_active, self._layers)):
            return self._fused(x)
        return self._fallback(*arguments, **options)


def _is_active(layer: Any) -> bool:
    return not layer.disable_adapters and not layer.merged and list(layer.active_adapters) == [ADAPTER]


def _fuse_query_key_value(layer: nn.Module) -> bool:
    return _fuse_projections(layer, QUERY_KEY_VALUE, "apply_qkv")


def _fuse_output(layer: nn.Module) -> bool:
    return _fuse_projections(layer, OUTPUT, "apply_o")


def _fuse_projections(layer: nn.Module, names: Sequence[str], attribute: str) -> bool:
    """Fuse projections of one input in the place of what Unsloth's attention calls; returns whether they are."""
    from component.models.fused_lora import SharedInput

    attention = getattr(layer, "self_attn", None)
    adapted = _adapted(attention, names)
    fallback = getattr(attention, attribute, None)
    if adapted is None or fallback is None:
        return False
    group = SharedInput(adapted)
    # Several projections come as a tuple, one alone as a tensor.
    call = group if len(names) > 1 else lambda x: group(x)[0]
    setattr(attention, attribute, _Fused(attention, _modules(attention, names), adapted[0].dtype, call, fallback))
    return True


def _fuse_mlp(layer: nn.Module, module: ModuleType) -> bool:
    from component.models.fp8_linear import Fp8Linear
    from component.models.fused_fp8_mlp import Fp8GatedMlp
    from component.models.fused_lora import GatedMlp

    mlp = getattr(layer, "mlp", None)
    adapted = _adapted(mlp, MLP)
    fallback = getattr(mlp, "forward", None)
    function = getattr(fallback, "__func__", None)
    kernels = ACTIVATIONS.get(getattr(function, "__name__", ""))
    if adapted is None or kernels is None:
        return False
    is_fp8 = isinstance(adapted[0].base, Fp8Linear)
    if not is_fp8 and (len({part.rank for part in adapted}) > 1 or any(part.base.bias is not None for part in adapted)):
        return False
    if not all(hasattr(module, name) for name in kernels):
        return False
    make = Fp8GatedMlp if is_fp8 else GatedMlp
    fused = make(*adapted, *(getattr(module, name) for name in kernels))
    mlp.forward = _Fused(mlp, _modules(mlp, MLP), adapted[0].dtype, fused, fallback)
    return True


def _modules(owner: Any, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(owner, name) for name in names)


def _adapted(owner: Any, names: Sequence[str]) -> list[Adapted] | None:
    """The layers of a group with their adapters; None where one of them is otherwise."""
    found = [_plain_adapter(getattr(owner, name, None)) for name in names]
    whole = [adapted for adapted in found if adapted is not None]
    if len(whole) < len(names) or len({adapted.base.weight.dtype for adapted in whole}) > 1:
        return None
    return whole


def _plain_adapter(layer: Any) -> Adapted | None:
    """A layer with one plain adapter on frozen weights of 16 bit or in an Fp8Linear; None for all others."""
    import torch
    from peft.tuners.lora import LoraLayer

    from component.models.fp8_linear import Fp8Linear
    from component.models.fused_lora import Adapted

    if not isinstance(layer, LoraLayer) or set(layer.lora_A) != {ADAPTER}:
        return None
    base, up = layer.base_layer, layer.lora_B[ADAPTER]
    weight = getattr(base, "weight", None)
    if weight is None or weight.requires_grad:
        return None
    if weight.dtype not in (torch.float16, torch.bfloat16) and not isinstance(base, Fp8Linear):
        return None
    if weight.ndim != 2 or hasattr(weight, "quant_state") or up.bias is not None:
        return None
    if not isinstance(layer.lora_dropout[ADAPTER], torch.nn.Identity) or getattr(layer, "lora_variant", None):
        return None
    return Adapted(base, layer.lora_A[ADAPTER].weight, up.weight, layer.scaling[ADAPTER])

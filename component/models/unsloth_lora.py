"""Unsloth's layers on the fused adapters of `component.models.fused_lora` and `fused_mlp`.

The seam are three attributes that Unsloth itself sets on each layer: `self_attn.apply_qkv`, `self_attn.apply_o` and
`mlp.forward`. What they held serves evaluation, generation and passes without the adapter. Layers with fused adapters
are not compiled as a whole, which is slower: each would be compiled anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from component.models.block_compile import leave_uncompiled
from component.models.decoder_layers import find_layers
from component.models.unsloth_attention import SEAM_VERSIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from component.config.schema import ModelSection
    from component.models.fused_lora import Adapted, FourBitBase
    from component.runtime.hardware import Hardware

QUERY_KEY_VALUE, OUTPUT, MLP = ("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj")
#: What Unsloth calls an MLP with adapters -> its kernels of the activation, in unsloth.kernels.
ACTIVATIONS = {
    "apply_lora_mlp_swiglu": ("swiglu_fg_kernel", "swiglu_DWf_DW_dfg_kernel"),
    "apply_lora_mlp_geglu_exact": ("geglu_exact_forward_kernel", "geglu_exact_backward_kernel"),
    "apply_lora_mlp_geglu_approx": ("geglu_approx_forward_kernel", "geglu_approx_backward_kernel"),
}
ADAPTER = "default"
NO_GROUP = "no group of projections has a plain adapter on frozen weights"
#: bitsandbytes' number formats of 4 bit.
FOUR_BITS = ("nf4", "fp4")
#: Unsloth's function that restores 4-bit weights, in unsloth.kernels, and its switch for one buffer that all come into.
#: With it a weight's kernel is started again as it was the first time, which takes the host much less.
RESTORE, INTO_BUFFER = "fast_dequantize", "use_global_buffer"
#: Parts of decoder layers whose MLP comes last: what it gives is added to the residual stream and read by nothing else.
MLP_LAST = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


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

    def notices(self) -> list[str]:
        """Speed that is lost, and why; what the config itself rules out is told elsewhere."""
        return [] if self.obstacle in (None, NO_GROUP) else [f"fused_lora: Unsloth's own are used: {self.obstacle}"]

    def describe(self) -> str:
        """In words, for run.json."""
        if self.obstacle is not None:
            return f"no: {self.obstacle}"
        return f"query/key/value {self.attentions}, output {self.outputs}, mlp {self.mlps} of {self.num_layers} layers"


@dataclass(frozen=True)
class Seam:
    """What of Unsloth the fused adapters call.

    Attributes:
        kernels: its module of that name.
        version: Unsloth's.
        recomputes: whether its checkpointing computes a forward pass again whose output nobody reads.
    """

    kernels: ModuleType
    version: str
    recomputes: Callable[[], bool]


def wants_fused_adapters(model: ModelSection, hardware: Hardware) -> bool:
    """Whether adapters are to be fused: on a GPU, on all bases but those of LLM.int8()."""
    is_int8 = model.train_mode == "qlora" and model.quantization == "int8"
    return model.fused_lora and model.train_mode != "full" and not is_int8 and hardware.kind == "cuda"


def fuse_adapters(model: Any, seam: Seam) -> FusedAdapters:
    """Let the layers of a model train through fused adapters wherever all projections of a group allow it.

    Args:
        model: PeftModel that Unsloth has prepared.
    """
    import torch

    if seam.version not in SEAM_VERSIONS:
        known = " or ".join(SEAM_VERSIONS)
        return FusedAdapters(obstacle=f"layers are reached in Unsloth {known} only, and this is {seam.version}")
    _, layers = find_layers(model.get_base_model())
    counts, is_tried = [0, 0, 0], False
    for layer in layers:
        groups = [fuse(layer, seam) for fuse in (_fuse_query_key_value, _fuse_output, _fuse_mlp)]
        if not is_tried and any(groups):
            obstacles = (group.why_different() for group in groups if group is not None)
            if (obstacle := next(filter(None, obstacles), None)) is not None:
                return FusedAdapters(obstacle=obstacle)
            is_tried = True
        for kind, group in enumerate(groups):
            if group is not None:
                group.install()
                counts[kind] += 1
        if any(groups):
            leave_uncompiled(layer)
        if any(group is not None and group.has_moved_weights for group in groups):
            # What weights have left is a little too small for the next layer's. Left to the end, it is gigabytes.
            torch.cuda.empty_cache()
    if not any(counts):
        return FusedAdapters(obstacle=NO_GROUP)
    return FusedAdapters(*counts, num_layers=len(layers))


class _Fused:
    """A fused group in the place of what Unsloth calls.

    Args:
        owner: the module whose `training` decides.
        attribute: of the owner, that Unsloth calls.
        names: of the group's adapted layers.
        adapted: these layers.
        fused: the group.
    """

    def __init__(
        self, owner: nn.Module, attribute: str, names: Sequence[str], adapted: Sequence[Adapted], fused: Any
    ) -> None:
        self._owner, self._attribute, self._adapted, self._fused = owner, attribute, adapted, fused
        self._layers = tuple(getattr(owner, name) for name in names)
        self._dtype, self._fallback = adapted[0].dtype, getattr(owner, attribute)
        #: What is asked for arguments, such as `inplace`, hears of those of what was there.
        self.__signature__ = inspect.signature(self._fallback)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        import torch

        x: Tensor = arguments[-1]
        is_ours = self._owner.training and x.dtype == self._dtype and not torch.compiler.is_compiling()
        if is_ours and all(map(_is_active, self._layers)):
            return self._fused(x)
        return self._fallback(*arguments, **options)

    @property
    def has_moved_weights(self) -> bool:
        """Whether weights of the layers lie where they did not."""
        from component.models.fused_mlp import GatedMlp

        return isinstance(self._fused, GatedMlp)

    def install(self) -> None:
        """Take the place."""
        setattr(self._owner, self._attribute, self)

    def why_different(self) -> str | None:
        """Hold it to what was there; None where they agree. 8-bit floats are another base in Unsloth's own kernels."""
        from component.models.fp8_linear import Fp8Linear
        from component.models.fused_check import why_different

        base = self._adapted[0].base
        if isinstance(base, Fp8Linear):
            return None
        is_attention = self._attribute != "forward"
        plain = partial(self._fallback, self._owner) if is_attention else self._fallback
        trained = [matrix for layer in self._adapted for matrix in (layer.a, layer.b)]
        return why_different(self._fused, plain, trained, width=base.in_features, dtype=self._dtype)


def _is_active(layer: Any) -> bool:
    return not layer.disable_adapters and not layer.merged and list(layer.active_adapters) == [ADAPTER]


def _fuse_query_key_value(layer: nn.Module, seam: Seam) -> _Fused | None:
    return _fuse_projections(layer, QUERY_KEY_VALUE, "apply_qkv", seam)


def _fuse_output(layer: nn.Module, seam: Seam) -> _Fused | None:
    return _fuse_projections(layer, OUTPUT, "apply_o", seam)


def _fuse_projections(layer: nn.Module, names: Sequence[str], attribute: str, seam: Seam) -> _Fused | None:
    """Projections of one input, for the place of what Unsloth's attention calls; None where they cannot be fused."""
    from component.models.fused_lora import SharedInput

    attention = getattr(layer, "self_attn", None)
    adapted = _adapted(attention, names, seam)
    if adapted is None or getattr(attention, attribute, None) is None:
        return None
    group = SharedInput(adapted)
    # Several projections come as a tuple, one alone as a tensor.
    call = group if len(names) > 1 else lambda x: group(x)[0]
    return _Fused(attention, attribute, names, adapted, call)


def _fuse_mlp(layer: nn.Module, seam: Seam) -> _Fused | None:
    from component.models.fused_mlp import GatedMlp, SplitGatedMlp, never

    mlp = getattr(layer, "mlp", None)
    adapted = _adapted(mlp, MLP, seam)
    function = getattr(getattr(mlp, "forward", None), "__func__", None)
    kernels = ACTIVATIONS.get(getattr(function, "__name__", ""))
    if adapted is None or kernels is None or not all(hasattr(seam.kernels, name) for name in kernels):
        return None
    is_16bit = all(part.has_16bit_weights for part in adapted)
    if is_16bit and (len({part.rank for part in adapted}) > 1 or any(part.base.bias is not None for part in adapted)):
        return None
    is_last = {name for name, _ in layer.named_children()} == MLP_LAST
    fused = (GatedMlp if is_16bit else SplitGatedMlp)(
        *adapted,
        *(getattr(seam.kernels, name) for name in kernels),
        is_discarded=seam.recomputes if is_last else never,
    )
    return _Fused(mlp, "forward", MLP, adapted, fused)


def _adapted(owner: Any, names: Sequence[str], seam: Seam) -> list[Adapted] | None:
    """The layers of a group with their adapters; None where one of them is otherwise."""
    found = [_plain_adapter(getattr(owner, name, None), seam) for name in names]
    whole = [adapted for adapted in found if adapted is not None]
    if len(whole) < len(names) or len({(type(adapted.base), adapted.dtype) for adapted in whole}) > 1:
        return None
    return whole


def _plain_adapter(layer: Any, seam: Seam) -> Adapted | None:
    """A layer with one plain adapter on frozen weights; None for all others."""
    import torch
    from peft.tuners.lora import LoraLayer

    from component.models.fused_lora import Adapted

    if not isinstance(layer, LoraLayer) or set(layer.lora_A) != {ADAPTER}:
        return None
    base, up = _frozen_base(layer.base_layer, seam), layer.lora_B[ADAPTER]
    if base is None or up.bias is not None:
        return None
    if not isinstance(layer.lora_dropout[ADAPTER], torch.nn.Identity) or getattr(layer, "lora_variant", None):
        return None
    return Adapted(base, layer.lora_A[ADAPTER], up, layer.scaling[ADAPTER])


def _frozen_base(base: Any, seam: Seam) -> nn.Linear | FourBitBase | None:
    """The layer as fused adapters take it: in 16 bit, in 8-bit floats, or in bitsandbytes' 4 bit; None for others."""
    import torch

    from component.models.fp8_linear import Fp8Linear
    from component.models.fused_lora import FourBitBase

    weight = getattr(base, "weight", None)
    if weight is None or weight.requires_grad or weight.ndim != 2:
        return None
    if isinstance(base, Fp8Linear):
        return base
    if getattr(weight, "quant_state", None) is not None:
        restore = getattr(seam.kernels, RESTORE, None)
        if restore is None or getattr(weight, "quant_type", None) not in FOUR_BITS:
            return None
        has_buffer = INTO_BUFFER in inspect.signature(restore).parameters
        return FourBitBase(base, partial(restore, **{INTO_BUFFER: True}) if has_buffer else restore)
    return base if weight.dtype in (torch.float16, torch.bfloat16) else None

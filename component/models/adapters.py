"""New LoRA adapters: which layers get one, and how they are attached to a frozen base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from component.config.adapter_rules import layer_numbers, moves_weights
from component.config.errors import UserError
from component.config.schema import AdapterSection
from component.models.decoder_layers import layer_prefixes
from component.models.language_model import is_tower
from component.models.new_rows import rows_to_train
from component.models.quantization import eight_bit_layers, four_bit_layers
from component.models.saved_modules import are_tied, check_saved_modules, train_in_float32

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


def build_lora_config(
    adapter: AdapterSection, model: PreTrainedModel, *, new_token_ids: Sequence[int] = ()
) -> LoraConfig:
    """Build the adapter's configuration for a loaded base model.

    Args:
        new_token_ids: tokens whose rows of embeddings and output head are trained.

    Raises:
        UserError: `lora_target_modules`, `layers_to_transform` or `modules_to_save` do not fit the model.
    """
    from peft import LoraConfig, TaskType

    # PEFT trains and saves a score head with the adapter.
    kind = TaskType.SEQ_CLS if hasattr(model, "score") else TaskType.CAUSAL_LM
    return LoraConfig(task_type=kind, **lora_arguments(adapter, model, new_token_ids=new_token_ids))


def lora_arguments(
    adapter: AdapterSection, model: PreTrainedModel, *, new_token_ids: Sequence[int] = ()
) -> dict[str, Any]:
    """The adapter's settings under PEFT's names, which Unsloth takes too.

    Args:
        new_token_ids: see `build_lora_config`.

    Raises:
        UserError: see `build_lora_config`.
    """
    return {
        "r": adapter.lora_rank,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.lora_dropout,
        "target_modules": find_targets(model, adapter.lora_target_modules, layer_numbers(adapter.layers_to_transform)),
        "modules_to_save": check_saved_modules(model, adapter.modules_to_save),
        "ensure_weight_tying": are_tied(model, adapter.modules_to_save),
        "trainable_token_indices": rows_to_train(model, new_token_ids, adapter.modules_to_save),
        "bias": "none",
        "use_rslora": adapter.use_rslora,
        "use_dora": adapter.use_dora,
        "lora_bias": adapter.lora_bias,
        "init_lora_weights": adapter.init_lora_weights,
    }


def find_targets(model: PreTrainedModel, names: Sequence[str], layers: Sequence[int] = ()) -> list[str]:
    """Resolve `lora_target_modules` against a model.

    Args:
        names: `all-linear`, last parts of module names (`q_proj`), or whole ones.
        layers: numbers of the layers that targets lie in, all and what is around them where none is given.

    Returns:
        What PEFT's target_modules takes, sorted: last parts of names where these reach the targets alone, else whole
        names.

    Raises:
        UserError: a name matches no linear layer, or PEFT would take it for something else.
    """
    linear = linear_layers(model)
    heads = [model.get_output_embeddings(), getattr(model, "score", None)]
    reserved = names_of_experts(model)
    wanted: set[str] = set()
    for name in names:
        if name == ALL_LINEAR:
            found = {path for path, layer in linear.items() if layer not in heads and not is_tower(path)}
            found = {path for path in found if _last_part(path) not in reserved}
        elif _last_part(name) in reserved:
            raise UserError(
                f"lora_target_modules: {name!r} cannot be a target in this model: PEFT takes it for its experts; "
                "leave it out"
            )
        else:
            found = {path for path in linear if path == name or path.endswith(f".{name}")}
        if not found:
            available = ", ".join(sorted({_last_part(path) for path in linear}))
            raise UserError(f"lora_target_modules: no linear layer is called {name!r}; there are {available}")
        wanted |= found
    if layers:
        prefixes = layer_prefixes(model, layers, key="layers_to_transform")
        wanted = {path for path in wanted if path.startswith(prefixes)}
        if not wanted:
            raise UserError(
                f"layers_to_transform: lora_target_modules {', '.join(names)} are in none of these layers; "
                "drop one of them"
            )
    ends = {_last_part(path) for path in wanted}
    reached = {path for path, _ in model.named_modules() if _last_part(path) in ends}
    return sorted(ends) if reached == wanted else sorted(wanted)


def _last_part(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def names_of_experts(model: nn.Module) -> frozenset[str]:
    """Last parts of names that PEFT takes for projections of fused experts, wherever in the model they stand.

    So it keeps adapters from before transformers 5 loadable: it moves such a target from the dense layers and shared
    experts that bear the name to the fused experts, when an adapter is made and when it is loaded.
    """
    # peft 0.21 has this table and no way around it; delete when it moves the names of experts alone.
    from peft.utils import transformers_weight_conversion as conversion

    family = getattr(getattr(model, "config", None), "model_type", None)
    pattern = conversion._MODEL_TO_CONVERSION_PATTERN.get(family)
    return frozenset(conversion._MOE_TARGET_MODULE_MAPPING.get(pattern, {}))


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear layers by name, quantized ones included (bitsandbytes derives its own from torch's)."""
    from torch import nn

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def attach_adapter(model: PreTrainedModel, lora_config: LoraConfig, *, seed: int) -> PeftModel:
    """Freeze the base and attach a new adapter, initialised from `seed` alone so that both loaders start equal.

    The base stays in the number format it was loaded in: upcasting its norms, embeddings and head (as PEFT's
    prepare_model_for_kbit_training does) would cost memory and time for weights that never change. The
    adapter is float32.
    """
    import torch
    from peft import get_peft_model

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(seed)
    dtype = model.get_input_embeddings().weight.dtype
    prepared = get_peft_model(model, lora_config)
    train_in_float32(prepared, dtype)
    return prepared


def unfreeze_adapter(model: PeftModel, dtype: torch.dtype) -> None:
    """Train all that an adapter's config trains, in float32.

    For a GPU Unsloth freezes what is no LoRA matrix, such as the rows of new tokens, and trains copies of modules in
    the base's format.

    Args:
        dtype: the number format of the base.
    """
    model.base_model.set_requires_grad("default")
    train_in_float32(model, dtype)


def copy_moved_start(model: PeftModel, adapter: AdapterSection) -> dict[str, Tensor] | None:
    """Keep how a new adapter starts where its start moved weights out of the base; None where the base is unchanged.

    What training adds to the unchanged base is the difference of the trained adapter to this, which is what is saved.
    """
    from peft import get_peft_model_state_dict

    if not moves_weights(adapter.init_lora_weights):
        return None
    return {name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(model).items()}


def explain_unadapted_experts(model: nn.Module) -> str | None:
    """Say so where experts are one fused parameter: LoRA on linear layers and quantized ones do not reach them."""
    fused = sum(value.numel() for name, value in model.named_parameters() if value.dim() == 3 and "expert" in name)
    if not fused:
        return None
    kept = "and are not quantized" if four_bit_layers(model) or eight_bit_layers(model) else "and stay frozen"
    notice = f"{fused:,} parameters of fused experts are no linear layers: they get no adapter {kept}"
    reserved = names_of_experts(model)
    passed_over = sum(_last_part(path) in reserved for path in linear_layers(model))
    if not passed_over:
        return notice
    return f"{notice}; nor do {passed_over} linear layers beside them, whose names PEFT takes for the experts'"

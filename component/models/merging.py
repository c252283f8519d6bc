"""An adapter merged into its base: one whole model, on the CPU, in little more memory than its weights take."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from component.config.errors import UserError
from component.models.checkpoint import load_config, load_weights
from component.models.failures import first_line, told_as_user_error
from component.models.inference import load_own_tokenizer, read_run_settings, run_quantization
from component.models.model_files import ModelSource, read_source_config
from component.models.quantization import check_quantization, dequantize, quantized_and_back
from component.models.rope import scale_rope
from component.models.saved_adapters import load_adapter
from component.models.score_head import load_scored

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BaseWeights = Literal["original", "dequantized"]
#: Layers in which the distance of the quantized weights is measured, spread over the model.
NUM_MEASURED_LAYERS = 4


@dataclass(frozen=True)
class MergedModel:
    """A model without an adapter, ready to be saved.

    Attributes:
        base_weights: what the adapter was merged into.
        dtype: of the weights, by torch's name.
        notices: what a user has to know of it, one line each.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base_weights: BaseWeights
    dtype: str
    notices: tuple[str, ...]


def merge_adapter(source: ModelSource, *, dtype: str | None, base_weights: BaseWeights) -> MergedModel:
    """Load a base and merge its adapter into it.

    Args:
        source: with an adapter.
        dtype: of the result, by torch's name; None for the one in which the base is stored.
        base_weights: of an adapter that was trained on quantized weights; a base that is stored quantized has only
            those that it was trained on.

    Raises:
        UserError: base or adapter is missing, damaged, or cannot be merged.
        MachineError: bitsandbytes is needed and missing.
    """
    import torch

    config = load_config(source, trust_remote_code=False)
    stored = config.dtype or getattr(config.get_text_config(), "dtype", None) or torch.float32
    target = getattr(torch, dtype) if dtype else stored
    name = str(target).removeprefix("torch.")
    own = check_quantization(read_source_config(source), "qlora")
    trained_on = run_quantization(source, name)
    if base_weights == "dequantized" and own is None and trained_on is None:
        raise UserError(
            f"--base dequantized: nothing in {source.adapter} says that it was trained on quantized weights; "
            "leave it out, or name the run folder"
        )
    scale_rope(config, read_run_settings(source.adapter).get("rope_scaling") or {})
    tokenizer = load_own_tokenizer(source)
    from_quantized = own is not None or base_weights == "dequantized"
    model, notices = _load_base(source, config, tokenizer, target, trained_on if from_quantized else None)
    if from_quantized:
        dequantize(model, dtype=target)
    measured = None if from_quantized else trained_on
    notices += _merge(model, source, target, measured)
    if own is not None:
        notices += (f"the base is stored quantized ({own}): the adapter was merged into its weights, dequantized",)
    return MergedModel(model, tokenizer, "dequantized" if from_quantized else "original", name, notices)


def _load_base(
    source: ModelSource,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    from peft import PeftConfig

    subject = f"model_name_or_path: the adapter {source.adapter}"
    with told_as_user_error(subject, "check its adapter_config.json"):
        kind = PeftConfig.from_pretrained(source.adapter, revision=source.adapter_revision).task_type
    # An explicit None would discard a checkpoint's own quantization.
    arguments: dict[str, Any] = {} if quantization is None else {"quantization_config": quantization}
    arguments |= {"dtype": dtype, "device_map": {"": "cpu"}}
    if kind == "SEQ_CLS":
        # The adapter brings the head, whose start is of no account.
        return load_scored(source, config, seed=0, pad_token_id=tokenizer.pad_token_id, **arguments)
    return load_weights(source, config, **arguments)


def _merge(
    model: PreTrainedModel, source: ModelSource, dtype: torch.dtype, trained_on: BitsAndBytesConfig | None
) -> tuple[str, ...]:
    """Merge the adapter into the weights of `model`, in place.

    Args:
        trained_on: how the weights that the adapter was trained on were quantized, None where they are these.
    """
    was_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    # Parts that a family keeps in float32 stay so.
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    adapted, _ = load_adapter(model, source, is_trainable=False)
    before = _some_weights(adapted) if trained_on is not None else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
            merged = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:  # values that are not finite, biases without a place
        raise UserError(
            f"model_name_or_path: the adapter {source.adapter} cannot be merged: {first_line(error)}; "
            "check its files, or use it unmerged"
        ) from error
    assert merged is model, "PEFT merges in place"
    for name, parameter in model.named_parameters():
        # Modules that were trained in full, and tokens, are float32 in an adapter.
        parameter.data = parameter.data.to(dtypes.get(name, dtype))
    notices = ()
    if was_tied and not model.config.get_text_config().tie_word_embeddings:
        notices = ("input and output embeddings were one and are two now, as the adapter has trained them apart",)
    if trained_on is not None:
        notices += (_explain_quantization(model, before, trained_on),)
    return notices


def _some_weights(adapted: PeftModel) -> dict[str, Tensor]:
    """Copies of the base's weights in a few layers that have an adapter, by the names they have after merging."""
    from peft.tuners.lora import LoraLayer
    from torch import nn

    base = adapted.get_base_model()
    layers = {name: module.get_base_layer() for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {name: layers[name].weight.data.clone() for name in _spread(linear, NUM_MEASURED_LAYERS)}


def _spread(names: Sequence[str], number: int) -> list[str]:
    """That many of the names, evenly over all of them; all where there are not more."""
    count = min(number, len(names))
    return [names[(2 * index + 1) * len(names) // (2 * count)] for index in range(count)]


def _explain_quantization(model: PreTrainedModel, before: dict[str, Tensor], trained_on: BitsAndBytesConfig) -> str:
    """Say how far the weights that the adapter was trained on are from those that it was merged into."""
    bits = "8-bit" if trained_on.load_in_8bit else f"4-bit {trained_on.bnb_4bit_quant_type}"
    rounding = change = norm = 0.0
    for name, weight in before.items():
        rounding += float((quantized_and_back(weight, trained_on) - weight.float()).square().sum())
        change += float((model.get_submodule(name).weight.data.float() - weight.float()).square().sum())
        norm += float(weight.float().square().sum())
    told = f"the adapter was trained on {bits} weights and is merged into the unquantized ones"
    if not norm:
        return told
    return (
        f"{told}: they differ by {(rounding / norm) ** 0.5:.2%} of their norm, and the adapter's own change is "
        f"{(change / norm) ** 0.5:.2%} ({len(before)} layers measured), so answers can differ a little from those in "
        "training; --base dequantized merges into the weights of training"
    )

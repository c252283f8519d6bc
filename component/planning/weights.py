"""Bytes of weights, adapter and gradients on the device."""

from __future__ import annotations

from typing import Literal

from component.planning.optimizer import FEWEST_PAGED
from component.planning.shape import Linear
from component.planning.workload import Workload

#: bitsandbytes: a constant for each block of 4-bit weights; with double quantization it is one byte, and the constants
#: have a float32 constant for each of their own blocks (https://arxiv.org/abs/2305.14314, section 3).
BLOCK, CONSTANTS_BLOCK = 64, 256
#: Quantizations to 8 bit.
ONE_BYTE = ("int8", "fp8")
ADAPTER_BYTES = 4
"""A number of an adapter, of its gradient, and of a module that is trained beside it: float32, whatever the base."""


def bytes_per_quantized_weight(workload: Workload) -> float:
    """Bytes of one weight of a quantized layer, its constants included."""
    if workload.quantization in ONE_BYTE:
        return 1.0
    constant = 1 + 4 / CONSTANTS_BLOCK if workload.double_quantization else 4
    return 0.5 + constant / BLOCK


def quantized_bytes(workload: Workload) -> float:
    """Bytes of the quantized linear layers; those of 8 bit have a float32 constant for each row besides."""
    if workload.has_16bit_layers:
        return 0.0
    shape = workload.shape
    rows = sum(linear.features_out for linear in shape.linears) if workload.quantization in ONE_BYTE else 0
    return shape.num_layers * (shape.linear_per_layer * bytes_per_quantized_weight(workload) + 4 * rows)


def unquantized_bytes(workload: Workload) -> float:
    """Bytes on the device of embeddings, head, norms, experts, and linear layers that are not quantized (any more).

    What is dequantized has the format of the computation.
    """
    shape = workload.shape
    quantized = shape.num_layers * shape.linear_per_layer if workload.quantization else 0
    restored = quantized * workload.compute_bytes if workload.is_dequantized else 0
    elsewhere = (shape.embedding if workload.offloads_embedding else 0) + offloaded_head(workload)
    return (shape.num_parameters - quantized - elsewhere) * workload.load_bytes + restored


def offloaded_head(workload: Workload) -> int:
    """Parameters of the output head that are in main memory."""
    return workload.shape.head if workload.offloads_head else 0


def reference_bytes(workload: Workload) -> float:
    """Bytes of a second model that a preference task compares with; it is loaded as for full training."""
    return workload.shape.num_parameters * workload.load_bytes if workload.reference == "second model" else 0.0


def adapter_parameters(linear: Linear, rank: int) -> int:
    """Parameters of the two matrices on one linear layer."""
    return rank * (linear.features_in + linear.features_out)


def num_adapter_parameters(workload: Workload) -> int:
    """Parameters of the whole adapter, what is trained beside it aside."""
    adapter = workload.adapter
    if adapter is None:
        return 0
    reached = (linear for linear in workload.shape.linears if adapter.reaches(linear))
    return adapter.num_layers * sum(adapter_parameters(linear, adapter.rank) for linear in reached)


def adapter_bytes(workload: Workload) -> float:
    """Bytes of the adapter and of what is trained beside it."""
    beside = workload.adapter.trained_beside if workload.adapter else 0
    return (num_adapter_parameters(workload) + beside) * ADAPTER_BYTES


def num_trained(workload: Workload) -> int:
    """Parameters that are trained."""
    shape = workload.shape
    if workload.adapter is not None:
        return num_adapter_parameters(workload) + workload.adapter.trained_beside
    if workload.trained_layers is not None:
        layer = shape.linear_per_layer + shape.experts_per_layer + shape.norms_per_layer
        return workload.trained_layers * layer
    return shape.num_parameters


def num_trained_embeddings(workload: Workload) -> int:
    """Parameters of the input embeddings, where the whole model is trained."""
    return workload.shape.embedding if workload.adapter is None and workload.trained_layers is None else 0


def num_trained_tensors(workload: Workload) -> int:
    """Tensors that are trained: two matrices for each adapted layer, or a layer's weights and its two norms."""
    linears, adapter = workload.shape.linears, workload.adapter
    if adapter is not None:
        return adapter.num_layers * 2 * sum(adapter.reaches(linear) for linear in linears)
    return workload.num_trained_layers * (len(linears) + 2)


def num_in_small_tensors(workload: Workload) -> int:
    """Trained parameters of an adapter that are in tensors whose optimizer states are not paged."""
    adapter = workload.adapter
    if adapter is None:
        return 0
    widths = [(each.features_in, each.features_out) for each in workload.shape.linears if adapter.reaches(each)]
    sizes = [adapter.rank * width for pair in widths for width in pair]
    return adapter.num_layers * sum(size for size in sizes if size < FEWEST_PAGED)


def num_in_largest_tensor(workload: Workload) -> int:
    """Trained parameters in the largest of their tensors, modules trained beside an adapter aside."""
    linears, adapter = workload.shape.linears, workload.adapter
    if adapter is not None:
        widths = [max(each.features_in, each.features_out) for each in linears if adapter.reaches(each)]
        return adapter.rank * max(widths, default=0)
    return max(num_trained_embeddings(workload), *(linear.num_weights for linear in linears))


def trained_width(workload: Workload) -> int:
    """Bytes of a number that is trained, and of its gradient."""
    return ADAPTER_BYTES if workload.adapter else workload.load_bytes


def merged_rows_bytes(workload: Workload, name: Literal["embed_tokens", "lm_head"]) -> float:
    """Bytes of the matrix that PEFT makes in every pass of embeddings or head and their new rows; 0 without such rows.

    Its gradient has as many. The copy of the embeddings is gone before the first layer.
    """
    new_rows = workload.adapter.new_rows if workload.adapter else ()
    return workload.shape.embedding * workload.load_bytes if name in new_rows else 0.0


def gradient_bytes(workload: Workload) -> float:
    """Bytes of all gradients, each in the format of its parameter."""
    return num_trained(workload) * trained_width(workload)


def cast_weight_bytes(workload: Workload) -> tuple[float, float]:
    """Bytes of the 16-bit copies that are made of float32 weights: of one decoder layer, and of the head.

    Adapters are float32 on every loader. Unsloth's kernels cast them and keep nothing; fused ones keep theirs.
    """
    shape, width = workload.shape, workload.compute_bytes
    if not workload.is_mixed:
        head = 0
        layer = 0
    else:
        head = shape.embedding * width
        layer = 0 if workload.quantization else (shape.linear_per_layer + shape.experts_per_layer) * width
    keeps_casts = workload.loader == "vanilla" or workload.has_fused_adapters
    if workload.adapter is not None and keeps_casts and width < ADAPTER_BYTES:
        layer += num_adapter_parameters(workload) / shape.num_layers * width
    return float(layer), float(head)

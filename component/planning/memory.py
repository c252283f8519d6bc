"""Peak memory of a run: what lies on the device all the time, and the moment at which most lies on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from component.config.keys import LANGUAGE_MODEL_TASKS
from component.planning.activations import (
    attention_workspace,
    escaping_per_token,
    input_per_token,
    row_pairs_bytes,
    saved_by_layer,
    staying_per_token,
    taken_by_backward,
)
from component.planning.logits import LossMemory, loss_memory
from component.planning.optimizer import state_bytes, workspace_bytes
from component.planning.weights import (
    adapter_bytes,
    cast_weight_bytes,
    gradient_bytes,
    merged_rows_bytes,
    num_in_largest_tensor,
    num_in_small_tensors,
    num_trained,
    num_trained_embeddings,
    offloaded_head,
    quantized_bytes,
    reference_bytes,
    trained_width,
    unquantized_bytes,
)
from component.planning.workload import Workload

#: What cuBLAS takes of torch's memory on Hopper, less elsewhere: 32 MiB for each thread that multiplies, the program's
#: and autograd's; 8 each beside `offload_embedding`. A process whose model is gone still has these 64 MiB
#: (`benchmark.py plan`, first config).
LIBRARY_BYTES, SMALL_LIBRARY_BYTES = 64 * 2**20, 16 * 2**20
#: Share of what comes and goes within a step that is lost between blocks of other sizes, and of what stays for the
#: backward pass, in segments that grow (component/runtime/allocator.py); the largest block of scores comes on top
#: (`_lost`).
LOST_OF_TRANSIENT, LOST_OF_SAVED = 0.15, 0.02
#: Share lost of weights that are on the device only while the model is loaded, where 16-bit tensors come and go between
#: 4-bit ones that stay. An 8B Llama 3 through Unsloth, embeddings and head moved after loading: 5.44 GiB, 6.1 reserved.
LOST_OF_MOVED = 0.33
MOVED = "weights to be moved to main memory"


@dataclass(frozen=True)
class Part:
    """One row of a plan: what lies on the device, and bytes of it."""

    name: str
    num_bytes: float


@dataclass(frozen=True)
class MemoryPlan:
    """Memory at the moment when most is allocated.

    Attributes:
        parts: what is on the device then; they add up to `allocated`.
        moment: when that is.
        allocated, reserved: bytes, as torch.cuda.max_memory_allocated and max_memory_reserved count.
        paged: bytes of optimizer states in managed memory.
    """

    parts: tuple[Part, ...]
    moment: str
    allocated: float
    reserved: float
    paged: float


def plan_memory(workload: Workload) -> MemoryPlan:
    """Predict the peak."""
    trained = num_trained(workload)
    states, paged = state_bytes(
        workload.optimizer, trained, num_trained_embeddings(workload), num_in_small=num_in_small_tensors(workload)
    )
    static = (
        Part("quantized weights", quantized_bytes(workload)),
        Part(f"{8 * workload.load_bytes}-bit weights", unquantized_bytes(workload)),
        Part("reference model", reference_bytes(workload)),
        Part("adapter", adapter_bytes(workload)),
        Part(f"optimizer ({workload.optimizer})", states),
        Part("kernels' buffer", _buffer(workload)),
        Part("rotary tables", _rotary_tables(workload)),
        Part("libraries", SMALL_LIBRARY_BYTES if workload.offloads_embedding else LIBRARY_BYTES),
    )
    moments = {name: tuple(parts) for name, parts in _moments(workload)}
    moments["optimizer step"] = (
        Part("gradients", gradient_bytes(workload)),
        Part("optimizer's workspace", _optimizer_workspace(workload)),
    )
    moment, dynamic = max(moments.items(), key=lambda item: _total(item[1]))
    parts, loading = (*static, *dynamic), _while_loading(workload)
    reserved = max(_total(parts) + _lost(workload, dynamic), _total(loading) + _lost_while_loading(loading))
    if _total(loading) > _total(parts):
        moment, parts = "loading", loading
    parts = tuple(part for part in parts if part.num_bytes > 0)
    return MemoryPlan(parts, moment, _total(parts), reserved, paged)


def _optimizer_workspace(workload: Workload) -> float:
    width, largest = trained_width(workload), num_in_largest_tensor(workload)
    return workspace_bytes(workload.optimizer, num_trained(workload), num_in_largest=largest, width=width)


def _moments(workload: Workload) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """The moments of a step that may be the peak, and what lies on the device beside what always does."""
    loss, tokens, layers = loss_memory(workload), workload.tokens, workload.num_trained_layers
    gradients = gradient_bytes(workload)
    mask, scores = row_pairs_bytes(workload)
    layer_copy, head_copy = cast_weight_bytes(workload)
    one_layer = saved_by_layer(workload) + scores
    recomputed = workload.recomputed_layers
    of_recomputed = (input_per_token(workload) + escaping_per_token(workload)) * tokens
    staying = staying_per_token(workload) * tokens
    kept = recomputed * of_recomputed + (layers - recomputed) * one_layer + staying
    copies = workload.shape.num_layers * layer_copy
    # A layer that recomputes gives its copies up after its forward pass, and makes them again in its backward pass.
    kept_copies = copies - workload.shape.num_layers * layer_copy * recomputed / layers
    backward_copies = min(copies, kept_copies + layer_copy)
    waiting = gradients if workload.gradients_wait else 0
    saved = Part("activations", kept + mask)
    # Autocast drops its copies when it ends, with the model's forward: only what next tokens cost is computed before.
    # Fused adapters drop theirs with each pass.
    are_all_there = workload.task in LANGUAGE_MODEL_TASKS and not workload.has_fused_adapters
    at_loss = head_copy + (copies if are_all_there else kept_copies)
    # Unsloth's loss makes the gradient of the head's rows at once, others' in the backward pass.
    head = _head(workload, copies=2 if workload.loader == "unsloth" else 1)
    yield "loss", (*head, *_at_loss(loss.forward, loss, saved, waiting, at_loss))
    # The head's gradient comes when the scores' float32 copies are gone: it is no part of this moment.
    at_loss = head_copy + kept_copies
    yield "loss, backward", (*_head(workload, copies=2), *_at_loss(loss.backward, loss, saved, waiting, at_loss))
    output = workload.shape.hidden * workload.load_bytes * tokens if _returns_output(workload) else 0
    restored = Part("activations of one layer", one_layer + output if recomputed else 0)
    backward = (
        Part("backward pass of one layer", taken_by_backward(workload)),
        Part("kernels' workspace", _dequantized(workload)),
        Part("16-bit copies of weights", backward_copies),
    )
    gradient = Part("gradients", max(waiting, _head_gradient(workload)))
    if workload.skipped_layers and recomputed:
        # The last layer is among those that skip checkpointing: what it has kept is gone when the first one is
        # restored, and what the next such layer has is there until all between them have their gradients.
        yield "backward pass of the last layer", (saved, gradient, *backward)
        between = ceil(layers / workload.skipped_layers) - 1
        of_head = _head_gradient(workload)
        made = Part("gradients", max(waiting, of_head + (gradients - of_head) * between / layers))
        before = Part("activations", kept - one_layer + mask)
        yield "backward pass before the next layer that recomputes nothing", (before, made, restored, *backward)
    else:
        last = Part("last layer's output", output)
        yield "backward pass of the last layer", (saved, gradient, last, restored, *backward)
    yield (
        "backward pass of the first layer",
        (
            Part("activations", (of_recomputed if recomputed else one_layer) + staying + mask),
            Part("gradients", gradients),
            restored,
            *backward,
        ),
    )
    yield from _outside_of_layers(workload, loss)


def _outside_of_layers(workload: Workload, loss: LossMemory) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """Moments at which a step holds no activations of its layers, or there is no step."""
    if merged := merged_rows_bytes(workload, "embed_tokens"):
        # The gradient of all embeddings, of which the new rows' is taken.
        gradients = Part("gradients", gradient_bytes(workload) + merged)
        yield "backward pass of the embeddings", (gradients,)
    if workload.task == "grpo":
        # Keys and values of all that is generated, by all layers.
        shape = workload.shape
        cache = 2 * shape.key_width * workload.compute_bytes * shape.num_layers * workload.tokens
        parts = Part("keys and values", cache), Part("logits and loss", loss.hidden)
        yield "generation", (*_head(workload), *parts)
    if workload.eval_rows:
        yield "evaluation", (*_head(workload), *_at_evaluation(replace(workload, rows=workload.eval_rows)))


def _head(workload: Workload, copies: int = 1) -> tuple[Part, ...]:
    """What comes to the device, or is made there, of the output head while there are scores.

    Args:
        copies: of the head with new rows: one, or its gradient too.
    """
    return (
        Part("output head", offloaded_head(workload) * workload.load_bytes),
        Part("head with new rows", copies * merged_rows_bytes(workload, "lm_head")),
    )


def _while_loading(workload: Workload) -> tuple[Part, ...]:
    """What is on the device when the last weight comes, before there is an optimizer.

    Weights are quantized one by one on the device, and come there in 16 bit. Those of 8-bit floats are all there when
    the first is rounded, and the adapter is.
    """
    read, shape = replace(workload, is_dequantized=False), workload.shape
    is_rounded = workload.quantization == "fp8"
    moved = (shape.embedding if workload.offloads_embedding else 0) + offloaded_head(workload)
    return (
        Part("quantized weights", quantized_bytes(read)),
        Part(f"{8 * workload.load_bytes}-bit weights", unquantized_bytes(read)),
        Part("adapter", adapter_bytes(workload) if is_rounded else 0),
        Part(
            "weights to be rounded",
            shape.num_layers * shape.linear_per_layer * (workload.load_bytes - 1) if is_rounded else 0,
        ),
        Part("largest weight in 16 bit", _largest_weight(workload) if workload.quantization and not is_rounded else 0),
        Part(MOVED, moved * workload.load_bytes if workload.moves_offloaded else 0),
    )


def _lost_while_loading(parts: tuple[Part, ...]) -> float:
    moved = sum(part.num_bytes for part in parts if part.name == MOVED)
    coming = sum(part.num_bytes for part in parts if part.name in ("weights to be rounded", "largest weight in 16 bit"))
    return LOST_OF_MOVED * moved + LOST_OF_TRANSIENT * coming


def _total(parts: tuple[Part, ...]) -> float:
    return sum(part.num_bytes for part in parts)


def _at_loss(
    scores: float, loss: LossMemory, saved: Part, gradients: float, copies: float
) -> tuple[Part, ...]:  # fmt: skip
    return (
        saved,
        Part("gradients", gradients),
        Part("16-bit copies of weights", copies),
        Part("last hidden states", loss.hidden),
        Part("logits and loss", scores),
    )


def _at_evaluation(workload: Workload) -> tuple[Part, ...]:
    """Of a workload whose rows are those of an evaluation batch."""
    layer, loss = saved_by_layer(workload) + row_pairs_bytes(workload)[1], loss_memory(workload)
    # Gradients were dropped after the last step; one layer at a time, whose parts go as soon as they were read.
    return Part("activations of one layer", layer), Part("logits and loss", loss.forward + loss.hidden)


def _returns_output(workload: Workload) -> bool:
    """Whether a recomputed layer's result is made and held; transformers stops before it."""
    return workload.loader == "unsloth" and workload.checkpointing == "offload"


def _head_gradient(workload: Workload) -> float:
    """Gradient of the output head, which is there before those of the layers."""
    if workload.adapter is not None or workload.trained_layers is not None:
        return 0.0
    return workload.shape.embedding * workload.load_bytes


def _buffer(workload: Workload) -> float:
    """Unsloth's buffer for 4-bit weights in 16 bit, one at a time, which it keeps."""
    is_four_bit = workload.quantization in ("nf4", "fp4") and not workload.is_dequantized
    return _largest_weight(workload) if workload.loader == "unsloth" and is_four_bit else 0.0


def _rotary_tables(workload: Workload) -> float:
    """Unsloth's sines and cosines, which packed rows have for all positions that the model knows."""
    if workload.loader != "unsloth" or not workload.is_packed:
        return 0.0
    return 2 * workload.shape.max_positions * workload.shape.head_dim * workload.compute_bytes


def _dequantized(workload: Workload) -> float:
    """The largest weight in 16 bit, once; fused adapters read it from the buffer.

    Of 8-bit floats it is a transposed copy, and the gradient that is rounded.
    """
    if workload.has_16bit_layers or (_buffer(workload) and workload.has_fused_adapters):
        return 0.0
    if workload.quantization == "fp8":
        return _largest_weight(workload) / workload.compute_bytes + workload.tokens * workload.shape.mlp_width
    return _largest_weight(workload)


def _largest_weight(workload: Workload) -> float:
    return max(linear.num_weights for linear in workload.shape.linears) * workload.compute_bytes


def _lost(workload: Workload, dynamic: tuple[Part, ...]) -> float:
    """Bytes that are reserved and not allocated at the peak."""
    saved = sum(part.num_bytes for part in dynamic if part.name in ("activations", "gradients"))
    logits = sum(part.num_bytes for part in dynamic if part.name == "logits and loss")
    others = sum(part.num_bytes for part in dynamic) - saved - logits
    single = loss_memory(workload).largest if logits else 0
    if not workload.grows_segments:
        single = max(single, attention_workspace(workload))
    return LOST_OF_SAVED * saved + LOST_OF_TRANSIENT * others + single

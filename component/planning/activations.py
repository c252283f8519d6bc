"""Bytes that one decoder layer keeps for its backward pass, and what that pass takes while it runs.

Counted from what each operation saves, for one token. Below, `hidden` is the width of the residual stream, `queries`
and `keys` those of all query and all key heads, `inner` that of the MLP; factors are numbers kept of that width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from component.planning.shape import HEAD_NORMS
from component.planning.weights import ADAPTER_BYTES
from component.planning.workload import Workload

#: Layers that Unsloth compiles as a whole, beyond what their operations save, in bytes a feature of the queries while
#: one layer's backward runs: what is left of 276 kB a token of an 8B shape (2048 x 16 took 15.10 GiB). Packed rows and
#: layers with fused adapters are not compiled.
UNSLOTH_COMPILED_BACKWARD = 22
#: Lengths that Unsloth has cuDNN's attention see are multiples of this.
UNSLOTH_BUCKET = 128


def saved_per_token(workload: Workload) -> float:
    """Bytes a token that one decoder layer keeps when it does not recompute."""
    mine = _unsloth_saved if workload.loader == "unsloth" else _vanilla_saved
    return mine(workload) + _attention_saved(workload)


def saved_by_layer(workload: Workload) -> float:
    """Bytes that one decoder layer keeps for all tokens; of what its MLP keeps, where it is tiled, those of a tile."""
    return _tiled(workload, saved_per_token)


def taken_by_backward(workload: Workload) -> float:
    """Bytes that the backward pass of one decoder layer takes for all tokens; see `backward_per_token`."""
    return _tiled(workload, backward_per_token)


def _tiled(workload: Workload, per_token: Callable[[Workload], float]) -> float:
    tokens, tile = workload.tokens, workload.mlp_tile_tokens
    if tile is None or tile >= tokens:
        return per_token(workload) * tokens
    without_mlp = per_token(replace(workload, shape=replace(workload.shape, intermediate=0)))
    return without_mlp * tokens + (per_token(workload) - without_mlp) * tile


def input_per_token(workload: Workload) -> float:
    """Bytes a token of what one decoder layer starts from: all that recomputation keeps, on the device."""
    return workload.shape.hidden * workload.load_bytes if workload.checkpointing == "recompute" else 0.0


def escaping_per_token(workload: Workload) -> float:
    """Bytes a token that one decoder layer keeps although it recomputes.

    bitsandbytes' LLM.int8() product holds its input as an attribute of its own (`MatMul8bitLt`, `ctx.tensors`) and not
    by `save_for_backward`; checkpointing drops only what went through the latter.
    """
    if workload.quantization != "int8" or workload.loader == "unsloth":
        return 0.0
    return _inputs_saved(workload) + workload.shape.query_width * workload.compute_bytes


def staying_per_token(workload: Workload) -> float:
    """Bytes a token that are there from the first layer's forward pass to its backward pass, whatever recomputes.

    Unsloth's first layer starts from a tensor of autograd's own; inputs that were offloaded come back through two
    buffers, which are kept.
    """
    if workload.loader != "unsloth":
        return 0.0
    buffers = 2 * workload.compute_bytes if workload.checkpointing == "offload" else 0
    return workload.shape.hidden * (workload.load_bytes + buffers)


def backward_per_token(workload: Workload) -> float:
    """Bytes a token that the backward pass of one decoder layer takes beyond what the layer has kept.

    The gradient that came in, the one that goes out and, largest, those between the MLP's matrices; of a tiled MLP, of
    which there is little at once, those of the attention.
    """
    shape, width = workload.shape, workload.compute_bytes
    stream = 2 * shape.hidden * workload.load_bytes
    of_attention = _attention_backward(workload)
    if workload.loader == "unsloth":
        # Its MLP overwrites gate and up with their gradients: one more tensor is enough.
        taken = stream + max(shape.mlp_width * width, of_attention)
        if workload.checkpointing == "offload" and not (workload.is_packed or workload.has_fused_adapters):
            taken += UNSLOTH_COMPILED_BACKWARD * shape.query_width
        return taken
    # Of the two that enter the gate's product one is there at a time; fused kernels overwrite both.
    taken = (1 if workload.has_liger else 2) * shape.mlp_width * width
    if _casts_for_adapters(workload):
        # At the last matrix: what comes back through its weight and, cast twice, through its adapter.
        taken = max(taken, shape.mlp_width * (2 * width + ADAPTER_BYTES))
    return stream / 2 + max(taken, of_attention)


def _attention_backward(workload: Workload) -> float:
    """Bytes a token while the attention's backward pass runs, when what the MLP has kept is gone.

    Gradients of its output, queries, keys and values, and what their float32 sums are added up in.
    """
    shape, width = workload.shape, workload.compute_bytes
    gradients = 2 * (shape.query_width + _key_width(workload)) * width
    return gradients + _sums_per_token(workload) - (shape.hidden + 2 * shape.mlp_width) * width


def _sums_per_token(workload: Workload) -> float:
    """Bytes of float32 sums of the gradients of the queries; cuDNN takes twice as much, as it was traced."""
    is_cudnn = not workload.is_packed or workload.has_full_rows
    return (8.0 if is_cudnn else 4.0) * workload.shape.query_width


def row_pairs_bytes(workload: Workload) -> tuple[float, float]:
    """Bytes of what grows with the square of a row: a mask shared by all layers, and the scores of one layer."""
    length = workload.row_tokens * (workload.rows if workload.is_packed else 1)
    pairs = (1 if workload.is_packed else workload.sequences) * length**2
    has_mask = workload.attention == "eager" or (
        workload.loader == "vanilla" and workload.attention == "sdpa" and (workload.is_packed or workload.is_padded)
    )
    # Scores are softened in float32, cast, and dropped out of: two copies in the format of the computation stay.
    scores = workload.shape.num_heads * pairs * 2 * workload.compute_bytes if workload.attention == "eager" else 0
    return float(pairs if has_mask else 0), float(scores)


def _attention_saved(workload: Workload) -> float:
    """Queries, keys, values and output; the logarithms of the softmax's sums in float32."""
    shape, width = workload.shape, workload.compute_bytes
    saved = 2 * (shape.query_width + _key_width(workload)) * width + 4 * shape.num_heads
    if not is_lengthened(workload):
        return saved
    # The output is cut to the row again, which makes a copy for the layer that reads it.
    return saved * lengthened(workload.row_tokens) / workload.row_tokens + shape.query_width * width


def attention_workspace(workload: Workload) -> float:
    """Bytes of the largest block that cuDNN's attention takes in its backward pass, where that is not the peak.

    In segments of fixed size no other operation has use for it.
    """
    if workload.is_packed:
        return 0.0
    length = lengthened(workload.row_tokens) if is_lengthened(workload) else workload.row_tokens
    return _sums_per_token(workload) * workload.sequences * length


def is_lengthened(workload: Workload) -> bool:
    """Whether Unsloth lengthens rows for cuDNN's attention, as it does unpacked ones."""
    return workload.loader == "unsloth" and not workload.is_packed


def lengthened(length: int) -> int:
    """Tokens of a row there: unsloth.utils.attention_dispatch adds at least one, up to a multiple of 128."""
    return length + UNSLOTH_BUCKET - length % UNSLOTH_BUCKET


def _key_width(workload: Workload) -> int:
    """Features of the keys that the attention works on."""
    dense_mask = workload.loader == "vanilla" and workload.attention == "sdpa" and (
        workload.is_packed or workload.is_padded
    )  # fmt: skip
    # With a mask each key head is repeated for its queries.
    repeats = dense_mask or workload.attention == "eager"
    return workload.shape.query_width if repeats else workload.shape.key_width


def _unsloth_saved(workload: Workload) -> float:
    """unsloth.kernels: what both norms give and their inputs (hidden), gate and up before the activation (inner).

    Norms of query and key heads keep their inputs. Fused adapters keep what is between their matrices, and those on
    16-bit layers a copy of the MLP's input.
    """
    shape, width = workload.shape, workload.compute_bytes
    inputs = 0 if workload.keeps_norm_outputs else 2 * shape.hidden * workload.load_bytes
    copied = shape.hidden * width if workload.has_16bit_layers and workload.keeps_norm_outputs else 0
    of_adapters = _scaled_down(workload) + copied if workload.has_fused_adapters else 0
    return inputs + (2 * (shape.hidden + shape.mlp_width) + _head_norms(workload)) * width + of_adapters


def _vanilla_saved(workload: Workload) -> float:
    """transformers' layers under autocast, with PEFT's adapters."""
    shape, width = workload.shape, workload.compute_bytes
    hidden, inner = shape.hidden, shape.mlp_width
    # A norm keeps its input in float32, a fused one keeps it as it is.
    norms = (2 * hidden + _head_norms(workload)) * (workload.load_bytes if workload.has_liger else 4)
    # The result of a 4-bit layer comes in the format of its input, and the activation keeps that.
    wide = workload.load_bytes if workload.quantization in ("nf4", "fp4") else width
    # gate and up; plain operations also keep the activated gate.
    activation = 2 * inner * wide + (0 if workload.has_liger else inner * wide)
    return norms + activation + _inputs_saved(workload) + _scaled_down(workload)


def _head_norms(workload: Workload) -> int:
    """Features that the norms of query and key heads take in."""
    shape = workload.shape
    return shape.query_width + shape.key_width if shape.model_type in HEAD_NORMS else 0


def _casts_for_adapters(workload: Workload) -> bool:
    """Whether PEFT makes each adapter's input float32, the adapter's format, as beside layers not of bitsandbytes."""
    is_plain = workload.quantization in (None, "fp8")
    return workload.adapter is not None and is_plain and workload.compute_bytes < ADAPTER_BYTES


def _scaled_down(workload: Workload) -> float:
    """What each adapter has between its two matrices."""
    adapter = workload.adapter
    if adapter is None:
        return 0.0
    number = sum(adapter.reaches(linear) for linear in workload.shape.linears)
    return number * adapter.rank * workload.compute_bytes


def _inputs_saved(workload: Workload) -> float:
    """What linear layers keep of their inputs, for the gradients of their own or their adapters' weights."""
    shape, width, adapter = workload.shape, workload.compute_bytes, workload.adapter
    hidden, inner, queries = shape.hidden, shape.mlp_width, shape.query_width
    # A norm that is trained keeps what it multiplies.
    is_kept = adapter is None and not workload.has_liger
    normalized = 2 * hidden * workload.load_bytes + _head_norms(workload) * width if is_kept else 0
    if _casts_for_adapters(workload):
        # PEFT casts the input to float32 and autocast back: every adapter keeps a copy of its own.
        return (5 * hidden + queries + inner) * width
    if workload.is_mixed:
        # A float32 input is cast for every layer that reads it; the attention's result, the output's input, is none.
        return (5 * hidden + inner) * width + normalized
    # One input serves query, key and value, and one gate and up. LLM.int8() keeps the same, where nothing stands out.
    return (2 * hidden + inner) * width + normalized

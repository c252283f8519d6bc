"""Seconds of an optimizer step on a card, from its datasheet and shares of it that were measured."""

from __future__ import annotations

from dataclasses import dataclass

from component.planning.gpus import Gpu
from component.planning.optimizer import optimizer_memory
from component.planning.weights import num_adapter_parameters, num_trained, num_trained_tensors, offloaded_head
from component.planning.workload import Workload

#: Share of the datasheet's FLOP/s that a step reaches, everything that is no matrix product included: an 8B shape on an
#: H200 (989.5 TFLOP/s). Unsloth: 2048 x 4 to x 16 give 523 to 534 TFLOP/s; vanilla 0.38 to 0.45 of the peak where 4096
#: tokens and more of an 8B or 13B width wait for nothing else, with Liger's kernels 0.41 (docs/experiments.md).
SHARE_OF_PEAK = {"unsloth": 0.535, "vanilla": 0.415}
LIGER_SHARE_OF_PEAK = 0.415
#: With adapters that are computed with their layers: what products reach, and the bytes that all that is none moves for
#: each token and feature of the residual stream, at the card's bandwidth, in a pass through a layer. Together 17,800
#: tokens/s for the 8B shape; the narrower a model, the larger the part of the second (`plan`'s configs of 1B to 13B).
FUSED_SHARE_OF_PEAK, FUSED_BYTES_PER_FEATURE = 0.676, 148
#: Of that share, what attention reaches: between full rows of 2,048, where it is all of it, and one row of 131,072,
#: which is nearly all attention and had 2,268 tokens/s beside other runs on the card: 0.63.
FUSED_ATTENTION_SHARE = 0.8
#: Of that, where what is not a product runs in float32 under autocast: Firefly's recipe, 6,143 tokens/s at 2048 x 4.
SHARE_IN_FLOAT32 = 0.8
#: Bytes that turning a 4-bit weight into 16 bit moves, with the product that reads it, and the share of the bandwidth
#: that it reaches: 19 ms for each pass over 7.0 billion weights (the part of Unsloth's steps that no token adds to).
BYTES_PER_DEQUANTIZED_WEIGHT, SHARE_OF_BANDWIDTH = 4.5, 0.35
#: LLM.int8() quantizes its input, multiplies and looks for outliers, for which the host waits at every layer: times the
#: passes of a 4-bit weight (6 layers of an 8B shape, 1024 x 2: 0.096 s).
INT8_PASSES = 7.3
#: Of products with 8-bit floats over those in 16 bit, rounding included: 8 rows of 2048 took 0.726 s, 0.972 in 16 bit.
FP8_SPEEDUP = 1.43
#: Seconds in which the host starts the kernels of one operation and autograd notes it: 0.142 s for 72 passes through
#: layers of 47 operations (0.3B, full, 1024 x 8). Short batches wait for it, and no card is faster at it.
SECONDS_PER_OPERATION = 42e-6
#: Operations of one pass (forward, recomputed or backward) through a layer of transformers: norms, rotation, attention,
#: residuals, activation; and those of one linear layer by its weights: float32 ones and their input are cast before the
#: product, 4-bit ones are restored with their constants (0.58 to 0.62 s for 96 passes of QLoRA).
OPERATIONS_PER_LAYER = 26
OPERATIONS_PER_LINEAR = {"plain": 1, "float32": 3, "4 bit": 6, "int8": 6, "fp8": 3}
#: An adapter's: casts of input and both matrices, dropout, two products, scaling, addition.
OPERATIONS_PER_ADAPTER = 9
#: Unsloth's kernels do several of these at once: seconds of a pass through a layer, 0.30 to 0.40 s for 96.
UNSLOTH_SECONDS_PER_PASS = 3.3e-3
#: The same with fused adapters. 4 bit: 0.24 s for 96 (8B, 1024 x 1), 0.24 s for 72 (0.5B, 512 x 16). 16 bit: 0.16 s for
#: 72 (0.5B, 2048 x 8).
FUSED_4BIT_SECONDS_PER_PASS, FUSED_SECONDS_PER_PASS = 3.0e-3, 2.3e-3
#: What packed rows add. With 3B in packs of 2048, one after the other: 2.58 s for 672 passes in 4 bit, 1.49 s for 448
#: in 16 bit (`benchmark.py auto`); with 8B in 4 bit 0.35 s for 96 of 128 tokens, 0.41 s for 80 of 2048 x 2.
PACKED_SECONDS_PER_PASS = 1.0e-3
#: Beside that with a base in 8-bit floats, taken from 4 packed rows of 2048 (0.438 s for 64); 8 rows gain more.
FP8_SECONDS_PER_PASS = 5.8e-3
#: Seconds for each tensor that an optimizer goes through one by one in Python; torch's own do all at once. Vanilla
#: 2048 x 4 took 37 ms longer with paged_adamw_32bit than with the fused one, for 448 tensors (docs/experiments.md).
SECONDS_PER_TENSOR = 80e-6
AT_ONCE = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
#: Bytes a second from main memory to a card: PCIe 4 with 16 lanes, an assumption.
BYTES_FROM_HOST = 25e9
#: Bytes a second of embeddings that the host looks up, copies to pinned memory and sends, while the card waits: 8 rows
#: of 2048, packed, lose 2.5 and 3.2 % on two hosts, 4 rows 0.8 and 4.3 % (`benchmark.py auto`).
BYTES_LOOKED_UP = 4e9
#: Layers of an MLP that is fused as a whole where each has an adapter; nobody reads what the last one recomputes.
MLP = ("gate_proj", "up_proj", "down_proj")
#: Times that the tokens of a micro-batch go through a model forward without gradients, for the reference.
REFERENCE_PASSES = {"none": 0, "adapter off": 1, "second model": 1, "computed before": 0}


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step.

    Attributes:
        compute: that the card computes.
        launch: that the host takes to start the kernels.
        launch_before: of `launch`, until those of the head are started, and compute_after: of `compute`, from then on.
        optimizer: of the update.
        tokens: that the step goes through, padding included.
    """

    compute: float
    launch: float
    launch_before: float
    compute_after: float
    optimizer: float
    tokens: int

    @property
    def seconds(self) -> float:
        """Of the whole step: the longest way through the host's work and the card's.

        The host is ahead while the card computes head and loss, so the forward pass may wait for the host and the
        backward pass for the card.
        """
        return max(self.compute, self.launch, self.launch_before + self.compute_after) + self.optimizer

    @property
    def tokens_per_second(self) -> float:
        """Padding included."""
        return self.tokens / self.seconds


def plan_step_time(workload: Workload, gpu: Gpu, *, micro_batches: int) -> StepTime | None:
    """Predict the time of a step; None for a card whose speed is not known, and where answers are sampled first.

    Args:
        micro_batches: that make one optimizer step.
    """
    if gpu.peak_flops is None or workload.task == "grpo":
        return None
    share = _share_of_peak(workload) * (SHARE_IN_FLOAT32 if workload.is_mixed else 1)
    # Without 16-bit arithmetic tensor cores are not used: about a fifteenth on a card with 16-bit peak from them.
    speed = share * gpu.peak_flops * (1 if workload.compute_bytes == 2 else 1 / 15)
    ahead, behind = _flops_per_token(workload)
    restored = _dequantize_seconds(workload, gpu)
    num_ahead, num_behind = _passes(workload)
    left_out = _recomputed_share(workload) * _left_out_weights(workload) / max(workload.shape.linear_per_layer, 1)
    after = workload.tokens * behind / speed + (num_behind - left_out) * restored
    copied = offloaded_head(workload) * workload.load_bytes / BYTES_FROM_HOST
    after += copied
    before = workload.tokens * ahead / speed + num_ahead * restored + (num_ahead - 1) * copied
    moved = _moving_seconds(workload, gpu)
    before, after = before + num_ahead * moved, after + num_behind * moved
    launch_before, launch_after = _launch_seconds(workload)
    looked_up = num_ahead * _lookup_seconds(workload)
    before, launch_before = before + looked_up, launch_before + looked_up
    return StepTime(
        compute=micro_batches * (before + after),
        launch=micro_batches * (launch_before + launch_after),
        launch_before=micro_batches * launch_before,
        compute_after=micro_batches * after,
        optimizer=_update_seconds(workload, gpu),
        tokens=micro_batches * workload.tokens,
    )


def _lookup_seconds(workload: Workload) -> float:
    if not workload.offloads_embedding:
        return 0.0
    return workload.tokens * workload.shape.hidden * workload.load_bytes / BYTES_LOOKED_UP


def _share_of_peak(workload: Workload) -> float:
    if workload.has_fused_adapters:
        return FUSED_SHARE_OF_PEAK
    return LIGER_SHARE_OF_PEAK if workload.has_liger else SHARE_OF_PEAK[workload.loader]


def flops(workload: Workload) -> float:
    """FLOPs of one micro-batch: matrix products with weights, adapters and the head, and causal attention."""
    return workload.tokens * sum(_flops_per_token(workload))


def _flops_per_token(workload: Workload) -> tuple[float, float]:
    """Those of a token until the layers' forward pass is through, and those of the head and all that comes then.

    Those of 8-bit floats and of attention count as those of 16-bit products that take as long.
    """
    shape = workload.shape
    layers, trained = shape.num_layers, workload.num_trained_layers
    speedup = FP8_SPEEDUP if workload.quantization == "fp8" else 1
    layer = 2 * (shape.linear_per_layer / speedup + shape.active_experts_per_layer)
    left_out = 2 * _left_out_weights(workload) / speedup
    head = 0 if workload.task == "reward" else 2 * shape.embedding * workload.learned_share
    # A token sees the half of its sample that lies before it: two products forward, five backward.
    attention = 2 * (workload.sample_tokens or workload.row_tokens) * shape.query_width
    attention /= FUSED_ATTENTION_SHARE if workload.has_fused_adapters else 1
    forward = layers * (layer + attention)
    recomputed = workload.recomputed_layers * (layer - left_out + attention)
    backward = trained * (layer + 2.5 * attention) + head
    weights = trained * layer + head if workload.adapter is None else 0
    adapter = num_adapter_parameters(workload)
    adapter_behind = adapter * (4 + 2 * _recomputed_share(workload))
    extra = (forward + head) * (_extra_passes(workload) + REFERENCE_PASSES[workload.reference])
    return extra + forward + 2 * adapter, head + recomputed + backward + weights + adapter_behind


def _extra_passes(workload: Workload) -> int:
    """Forward passes of the policy without gradients: kto's, on answers that belong to other prompts."""
    return 1 if workload.task == "kto" else 0


def _recomputed_share(workload: Workload) -> float:
    return workload.recomputed_layers / workload.num_trained_layers


def _left_out_weights(workload: Workload) -> int:
    """Weights of a layer that recomputation does not multiply with: fused MLPs leave out what nobody reads."""
    mlp, adapter = [linear for linear in workload.shape.linears if linear.name in MLP], workload.adapter
    if adapter is None or not workload.has_fused_adapters or not all(map(adapter.reaches, mlp)):
        return 0
    return sum(linear.num_weights for linear in mlp if linear.name == MLP[-1])


def _passes(workload: Workload) -> tuple[float, float]:
    """Times that weights are read: forward and by the reference; recomputed and backward."""
    # kto's answers to other prompts go through the reference as well.
    references = REFERENCE_PASSES[workload.reference] * (1 + _extra_passes(workload))
    return 1 + _extra_passes(workload) + references, 1 + _recomputed_share(workload)


def _launch_seconds(workload: Workload) -> tuple[float, float]:
    """Seconds of the host for the passes before the head, and after it."""
    layers, (num_ahead, num_behind) = workload.shape.num_layers, _passes(workload)
    if workload.loader == "unsloth":
        packed = PACKED_SECONDS_PER_PASS if workload.is_packed else 0
        seconds = layers * (_unsloth_seconds_per_pass(workload) + packed)
        return num_ahead * seconds, num_behind * seconds
    references = REFERENCE_PASSES[workload.reference] * (1 + _extra_passes(workload))
    bare = _operations(workload, with_adapter=False) * references
    whole = _operations(workload, with_adapter=True)
    ahead = bare + whole * (num_ahead - references)
    return layers * ahead * SECONDS_PER_OPERATION, layers * num_behind * whole * SECONDS_PER_OPERATION


def _unsloth_seconds_per_pass(workload: Workload) -> float:
    if workload.quantization == "fp8":
        return FP8_SECONDS_PER_PASS
    if not workload.has_fused_adapters:
        return UNSLOTH_SECONDS_PER_PASS
    return FUSED_SECONDS_PER_PASS if workload.has_16bit_layers else FUSED_4BIT_SECONDS_PER_PASS


def _operations(workload: Workload, *, with_adapter: bool) -> int:
    """Operations of a pass through one layer."""
    kind = {
        "nf4": "4 bit",
        "fp4": "4 bit",
        "int8": "int8",
        "fp8": "fp8",
        None: "float32" if workload.is_mixed else "plain",
    }
    quantization = None if workload.is_dequantized else workload.quantization
    linears, adapter = workload.shape.linears, workload.adapter
    adapted = sum(adapter.reaches(linear) for linear in linears) if adapter is not None and with_adapter else 0
    own = OPERATIONS_PER_LINEAR[kind[quantization]] * len(linears)
    return OPERATIONS_PER_LAYER + own + OPERATIONS_PER_ADAPTER * adapted


def _update_seconds(workload: Workload, gpu: Gpu) -> float:
    """Of the update: it reads parameter, gradient and states, and writes parameter and states."""
    state = optimizer_memory(workload.optimizer)
    moved = num_trained(workload) * (12 + 2 * (state.state + state.paged))
    one_by_one = 0 if workload.optimizer in AT_ONCE else num_trained_tensors(workload)
    return moved / (0.7 * gpu.bandwidth) + one_by_one * SECONDS_PER_TENSOR


def _moving_seconds(workload: Workload, gpu: Gpu) -> float:
    """Of what is no product, once through all layers; zero where the share of the peak includes it."""
    if not workload.has_fused_adapters:
        return 0.0
    features = workload.tokens * workload.shape.num_layers * workload.shape.hidden
    return features * FUSED_BYTES_PER_FEATURE / gpu.bandwidth


def _dequantize_seconds(workload: Workload, gpu: Gpu) -> float:
    if workload.has_16bit_layers or workload.quantization == "fp8":
        return 0.0
    weights = workload.shape.num_layers * workload.shape.linear_per_layer
    seconds = weights * BYTES_PER_DEQUANTIZED_WEIGHT / (SHARE_OF_BANDWIDTH * gpu.bandwidth)
    return seconds * (INT8_PASSES if workload.quantization == "int8" else 1)

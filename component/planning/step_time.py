"""Seconds of an optimizer step on a card, from its datasheet and shares of it that were measured."""

from __future__ import annotations

from dataclasses import dataclass

from component.planning.gpus import Gpu
from component.planning.optimizer import optimizer_memory
from component.planning.weights import num_adapter_parameters, num_trained
from component.planning.workload import Workload

#: Share of the datasheet's FLOP/s that a step reaches, everything that is no matrix product included: an 8B shape on an
#: H200 (989.5 TFLOP/s). Unsloth: 2048 x 4 to x 16 give 523 to 534 TFLOP/s; vanilla 383 with plain kernels, 409 with
#: Liger's (STACK, README).
SHARE_OF_PEAK = {"unsloth": 0.535, "vanilla": 0.40}
LIGER_SHARE_OF_PEAK = 0.415
#: Of that, where what is not a product runs in float32 under autocast: Firefly's recipe, 6,143 tokens/s at 2048 x 4.
SHARE_IN_FLOAT32 = 0.8
#: Bytes that turning a 4-bit weight into 16 bit moves, with the product that reads it, and the share of the bandwidth
#: that it reaches: 19 ms for each pass over 7.0 billion weights (the part of Unsloth's steps that no token adds to).
BYTES_PER_DEQUANTIZED_WEIGHT, SHARE_OF_BANDWIDTH = 4.5, 0.35
#: LLM.int8() quantizes its input, multiplies and looks for outliers: times the passes of a 4-bit weight.
INT8_PASSES = 2.0
#: Seconds in which the host starts the kernels of one pass (forward, recomputed, backward) through one layer: small
#: batches wait for it. Vanilla took 0.58 to 0.62 s for 96 such passes, Unsloth 0.30 to 0.40.
SECONDS_PER_LAUNCHED_PASS = {"unsloth": 3.3e-3, "vanilla": 6.0e-3}
#: Times that the tokens of a micro-batch go through the model forward, beside the forward of their own loss.
REFERENCE_PASSES = {"none": 0.0, "adapter off": 1.0, "second model": 1.0, "computed before": 0.0}


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step.

    Attributes:
        compute: that the card computes.
        launch: that the host takes to start the kernels; a step takes the longer of both.
        optimizer: of the update.
        tokens: that the step goes through, padding included.
    """

    compute: float
    launch: float
    optimizer: float
    tokens: int

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return max(self.compute, self.launch) + self.optimizer

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
    share = LIGER_SHARE_OF_PEAK if workload.has_liger else SHARE_OF_PEAK[workload.loader]
    share *= SHARE_IN_FLOAT32 if workload.is_mixed else 1
    # Without 16-bit arithmetic tensor cores are not used: about a fifteenth on a card with 16-bit peak from them.
    peak = gpu.peak_flops * (1 if workload.compute_bytes == 2 else 1 / 15)
    passes = _passes(workload)
    compute = flops(workload) / (share * peak) + passes * _dequantize_seconds(workload, gpu)
    launch = passes * workload.shape.num_layers * SECONDS_PER_LAUNCHED_PASS[workload.loader]
    state = optimizer_memory(workload.optimizer)
    # The update reads parameter, gradient and states, and writes parameter and states.
    moved = num_trained(workload) * (12 + 2 * (state.state + state.paged))
    return StepTime(
        compute=micro_batches * compute,
        launch=micro_batches * launch,
        optimizer=moved / (0.7 * gpu.bandwidth),
        tokens=micro_batches * workload.tokens,
    )


def flops(workload: Workload) -> float:
    """FLOPs of one micro-batch: matrix products with weights, adapters and the head, and causal attention."""
    shape, tokens = workload.shape, workload.tokens
    layers, trained = shape.num_layers, workload.num_trained_layers
    layer = 2 * (shape.linear_per_layer + shape.active_experts_per_layer)
    head = 0 if workload.task == "reward" else 2 * shape.embedding
    # A token sees the half of its sample that lies before it: two products forward, five backward.
    attention = 2 * (workload.sample_tokens or workload.row_tokens) * shape.query_width
    forward = layers * (layer + attention) + head
    recomputed = trained * (layer + attention) if workload.checkpointing != "none" else 0
    backward = trained * (layer + 2.5 * attention) + head
    weights = trained * layer + head if workload.adapter is None else 0
    adapter = num_adapter_parameters(workload) * (6 + (2 if recomputed else 0))
    extra = forward * (REFERENCE_PASSES[workload.reference] + (1 if workload.task == "kto" else 0))
    return tokens * (forward + recomputed + backward + weights + adapter + extra)


def _passes(workload: Workload) -> float:
    """Times that weights are read: forward, backward, recomputed, and by the reference."""
    passes = 2 + (1 if workload.checkpointing != "none" else 0) + REFERENCE_PASSES[workload.reference]
    return passes + (1 if workload.task == "kto" else 0)


def _dequantize_seconds(workload: Workload, gpu: Gpu) -> float:
    if workload.quantization is None:
        return 0.0
    weights = workload.shape.num_layers * workload.shape.linear_per_layer
    seconds = weights * BYTES_PER_DEQUANTIZED_WEIGHT / (SHARE_OF_BANDWIDTH * gpu.bandwidth)
    return seconds * (INT8_PASSES if workload.quantization == "int8" else 1)

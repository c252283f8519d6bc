"""Runs on one H200 that were measured before: Llama-3-8B shape, LoRA of rank 64 on all linear layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from component.planning.known_shapes import KNOWN_CONFIGS
from component.planning.shape import read_shape
from component.planning.workload import Adapter, Workload

SHAPE = read_shape(KNOWN_CONFIGS["NousResearch/Meta-Llama-3-8B-Instruct"])
assert SHAPE is not None


@dataclass(frozen=True)
class Measured:
    """A run: peak memory in GiB as torch counts it, and tokens a second where rows were full of tokens."""

    name: str
    workload: Workload
    allocated: float
    reserved: float | None = None
    tokens_per_second: float | None = None


UNSLOTH = Workload(
    shape=SHAPE,
    task="sft",
    loader="unsloth",
    quantization="nf4",
    double_quantization=True,
    adapter=Adapter(64, frozenset(linear.name for linear in SHAPE.linears), SHAPE.num_layers),
    trained_layers=None,
    load_bytes=2,
    compute_bytes=2,
    checkpointing="offload",
    attention="auto",
    is_packed=False,
    is_padded=False,
    has_liger=False,
    optimizer="paged_adamw_32bit",
    rows=4,
    row_tokens=2048,
    gradients_wait=False,
)
KEEPS = replace(UNSLOTH, checkpointing="none")
VANILLA = replace(UNSLOTH, loader="vanilla", checkpointing="recompute", attention="sdpa")
#: PEFT's preparation for quantized training makes embeddings, norms and head float32.
FIREFLY = replace(VANILLA, load_bytes=4)
LIGER = replace(VANILLA, checkpointing="none", has_liger=True)
PACKED = {"is_packed": True, "sample_tokens": 330}
FUSED = {"optimizer": "adamw_torch_fused"}
#: With fused adapters on packed rows; and with norms that keep what they give.
ADAPTERS = replace(UNSLOTH, **PACKED, has_fused_adapters=True, gradients_wait=True, learned_share=0.68)
NORMS = replace(ADAPTERS, keeps_norm_outputs=True)
WHOLE = replace(ADAPTERS, checkpointing="none", rows=8, is_dequantized=True, gradients_wait=False)
MINIMAL = replace(
    UNSLOTH, rows=1, row_tokens=1024, offloads_embedding=True, loss_chunk_tokens=256, optimizer="paged_adamw_8bit",
    has_fused_adapters=True, keeps_norm_outputs=True,
)  # fmt: skip
LONG = replace(
    UNSLOTH, **FUSED, rows=1, row_tokens=131_072, mlp_tile_tokens=4096, has_fused_adapters=True,
    keeps_norm_outputs=True, is_packed=True, has_full_rows=True,
    sample_tokens=131_072,
)  # fmt: skip
SHAPE_3B = read_shape(KNOWN_CONFIGS["meta-llama/Llama-3.2-3B-Instruct"])
assert SHAPE_3B is not None
ALL_LINEAR = Adapter(64, frozenset(linear.name for linear in SHAPE_3B.linears), SHAPE_3B.num_layers)
NARROW = replace(NORMS, shape=SHAPE_3B, adapter=ALL_LINEAR, rows=8, gradients_wait=False)
#: Their config.json said a million positions.
MANY = {"shape": replace(SHAPE, max_positions=2**20)}

MEASURED = (
    Measured("unsloth 1024 x 1", replace(UNSLOTH, rows=1, row_tokens=1024), 6.92, None, 2579),
    Measured("unsloth 2048 x 1", replace(UNSLOTH, rows=1), 7.15, None, 6818),
    Measured("unsloth 2048 x 4", UNSLOTH, 8.70, 9.18, 10_622),
    Measured("unsloth 2048 x 16", replace(UNSLOTH, rows=16), 15.10, None, 10_969),
    Measured("unsloth 8192 x 4", replace(UNSLOTH, row_tokens=8192), 15.07, None, 9541),
    Measured("unsloth 2048 x 4, fused optimizer", replace(UNSLOTH, **FUSED), 9.92, 10.25, 11_023),
    Measured("unsloth 2048 x 8, padded", replace(UNSLOTH, rows=8), 11.0),
    Measured("unsloth 2048 x 4, all kept", KEEPS, 36.6, None, 14_835),
    Measured("unsloth 2048 x 8, all kept", replace(KEEPS, rows=8), 66.9, None, 15_347),
    Measured("unsloth 2048 x 4, 16 bit, all kept", replace(KEEPS, quantization=None), 46.3, None, 15_022),
    Measured("unsloth 2048 x 8, 16 bit, all kept", replace(KEEPS, quantization=None, rows=8), 76.5, None, 15_516),
    Measured("unsloth 2048 x 4, packed", replace(UNSLOTH, **PACKED), 8.20, None, 10_665),
    Measured("unsloth 2048 x 16, packed", replace(UNSLOTH, **PACKED, rows=16), 12.8, None, 11_332),
    Measured("unsloth 2048 x 4, packed, all kept", replace(KEEPS, **PACKED), 33.73, None, 15_116),
    Measured("fused adapters 2048 x 4", replace(ADAPTERS, **MANY), 8.64, 8.79, 12_229),
    Measured("the same x 2, 17 kept", replace(ADAPTERS, **MANY, rows=2, skipped_layers=17), 15.01, None, 12_396),
    Measured("the same x 2, 19 kept, norms", replace(NORMS, rows=2, skipped_layers=19), 14.23, 14.51),
    Measured("chosen 2048 x 8", replace(WHOLE, **MANY), 71.74, 72.46, 17_697),
    Measured("chosen 2048 x 8, fused optimizer", replace(WHOLE, **MANY, **FUSED), 72.96, 73.50, 18_168),
    Measured(
        "the same x 8, 4 kept", replace(NORMS, rows=8, skipped_layers=4, gradients_wait=False), 13.35, 13.76, 13_090
    ),
    Measured("the same x 8, 2 kept", replace(NORMS, rows=8, skipped_layers=2, gradients_wait=False), 10.63, 10.98),
    Measured("the same x 2, all kept", replace(NORMS, rows=2, checkpointing="none"), 19.15, 19.22),
    Measured("3B 2048 x 8", NARROW, 4.73, 4.87),
    Measured("3B 2048 x 8, 3 kept", replace(NARROW, skipped_layers=3), 6.47, 6.77),
    Measured("3B 2048 x 8, 11 kept", replace(NARROW, skipped_layers=11), 14.11, 14.37),
    Measured("3B 2048 x 8, 14 kept, 16 bit", replace(NARROW, skipped_layers=14, is_dequantized=True), 22.02, 22.30),
    Measured("3B 2048 x 8, all kept", replace(NARROW, checkpointing="none"), 29.99, 30.29),
    Measured(
        "3B 2048 x 4, 27 kept, 16 bit",
        replace(NARROW, rows=4, gradients_wait=True, skipped_layers=27, is_dequantized=True),
        21.77,
        22.08,
    ),
    Measured(
        "full rows 2048 x 4", replace(UNSLOTH, has_fused_adapters=True, keeps_norm_outputs=True), 8.16, 8.27, 11_407
    ),
    Measured("minimal 1024 x 1", MINIMAL, 5.90, 6.01),
    Measured("minimal, head in main memory", replace(MINIMAL, row_tokens=336, offloads_head=True), 5.27, 5.6),
    Measured("long 131072 x 1", replace(LONG, **MANY), 24.67, 27.52, 2_268),
    Measured("vanilla 2048 x 4", VANILLA, 19.90, 23.68, 8047),
    Measured("vanilla 2048 x 4, fused optimizer", replace(VANILLA, **FUSED), 21.13, 24.25, 8348),
    Measured("vanilla 2048 x 8, padded", replace(VANILLA, rows=8, is_padded=True), 33.80),
    Measured("vanilla 2048 x 4, packed, dense mask", replace(VANILLA, **PACKED), 19.97),
    Measured("vanilla 2048 x 4, packed", replace(VANILLA, **PACKED, attention="varlen"), 19.91, None, 8184),
    Measured("firefly 1024 x 1", replace(FIREFLY, rows=1, row_tokens=1024), 11.05, None, 1665),
    Measured("firefly 2048 x 1", replace(FIREFLY, rows=1), 12.94, None, 3559),
    Measured("firefly 2048 x 4", FIREFLY, 24.84, 28.94, 6143),
    Measured("liger 2048 x 4, all kept", replace(LIGER, load_bytes=4), 68.1, None, 9556),
    Measured("liger 2048 x 4, 16 bit, all kept", replace(LIGER, quantization=None), 59.5, None, 12_434),
)
